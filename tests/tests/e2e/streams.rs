//! Streams that are open end with their session or their token, and those of others go on.
use std::time::{Duration, Instant};

use harness::mesh::{FRESHNESS, ISSUER, claims, claims_with, unix_now};
use harness::{FilterHost, Form, Mesh, MeshOptions, OpenStream, Request, Upstream, exchange, wait_until};
use serde_json::{Value, json};

const LAG: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
/// Envoy stops a stream at once, and closes its HTTP/1.1 connection after `delayed_close_timeout` or earlier.
const CLOSING: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const MARGIN: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(15);
const FORMS: [Form; 3] = [Form::WebSocket, Form::Events, Form::Grpc];

async fn options() -> MeshOptions {
    let mut options = MeshOptions::timed();
    for rule in options.filter["rules"].as_array_mut().expect("rules") {
        if rule["name"] == "api" {
            rule["streams"] = json!({ "end_on": ["revoked", "expired"], "cannot_tell_for": "5s" });
        }
    }
    options.filter["issuers"][0]["skew"] = "0s".into();
    options.upstream = Some(Upstream::ticking().await);
    options.edit = |bootstrap| {
        let upgrades = "codec_type: AUTO\n                upgrade_configs: [{ upgrade_type: websocket }]\n";
        let bootstrap = bootstrap.replace("codec_type: AUTO", upgrades).replace(" # HTTP/1.1 and HTTP/2", "");
        let bootstrap = bootstrap.replace("timeout: 15s", "timeout: 0s");
        let like_the_client = "    - name: upstream
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          use_downstream_protocol_config: { http_protocol_options: {}, http2_protocol_options: {} }\n";
        bootstrap.replace("    - name: upstream\n      type", &format!("{like_the_client}      type"))
    };
    options
}

async fn with_feed() -> MeshOptions {
    let mut options = options().await;
    options.filter["revocation"]["feed"] = json!({ "lag": "1s" });
    options
}

/// A counter or gauge, over all of its labels.
async fn metric(mesh: &Mesh, name: &str) -> u64 {
    mesh.envoy.stats(&format!("portcullis.{name}")).await.iter().map(|(_, count)| count).sum()
}

async fn is_fed(mesh: &Mesh) {
    let by_feed = async || {
        let before = metric(mesh, "feed_answers.result.clear").await;
        let token = mesh.token();
        let mut open = OpenStream::open(Form::Events, mesh.envoy.address(), &token).await;
        let _ = open.ended(Duration::ZERO).await;
        drop(open);
        wait_until(LAG, async || metric(mesh, "feed_answers.result.clear").await > before).await
    };
    assert!(wait_until(SOON, by_feed).await, "tokens are still asked about");
}

async fn end_session(mesh: &Mesh, claims: &Value) -> Instant {
    let sid = claims["sid"].as_str().expect("a session");
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", sid]).await;
    Instant::now()
}

/// Each form of stream of one session ends within this time, and those of another go on.
async fn each_ends(mesh: &Mesh, within: Duration) {
    let (ended, other) = (claims(), claims());
    let (token, others) = (mesh.keys.first.mint(&ended), mesh.keys.first.mint(&other));
    let mut streams = Vec::new();
    for form in FORMS {
        let address = mesh.envoy.address();
        streams.push((
            form,
            OpenStream::open(form, address, &token).await,
            OpenStream::open(form, address, &others).await,
        ));
    }
    // Longer than any verdict is fresh.
    tokio::time::sleep(FRESHNESS * 3).await;
    for (form, one, other) in &streams {
        assert!(one.goes_on().await && other.goes_on().await, "{form:?}");
    }
    let acknowledged = end_session(mesh, &ended).await;
    for (form, one, other) in &mut streams {
        let end = one.ended(SOON).await.unwrap_or_else(|| panic!("{form:?} goes on"));
        let (took, closed) = (end.saturating_duration_since(acknowledged), acknowledged.elapsed());
        eprintln!("{form:?}: the last message came after {took:?}, and it was closed after {closed:?}");
        assert!(took <= within && closed <= within + CLOSING, "{form:?} ended after {took:?}, closed after {closed:?}");
        assert!(other.goes_on().await, "{form:?} of another session");
    }
    assert!(wait_until(SOON, async || metric(mesh, "streams_ended.reason.revoked").await == 3).await);
    assert!(wait_until(SOON, async || metric(mesh, "streams_open").await == 3).await);
    drop(streams);
    assert!(wait_until(SOON, async || metric(mesh, "streams_open").await == 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_events_and_a_grpc_call_end_within_the_lag() {
    let mesh = Mesh::start_with("streams", with_feed().await).await;
    is_fed(&mesh).await;
    each_ends(&mesh, LAG + TICK + MARGIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_feed_they_end_within_the_freshness() {
    let mesh = Mesh::start_with("streams-asked", options().await).await;
    each_ends(&mesh, FRESHNESS + TICK + MARGIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_its_stream() {
    let mesh = Mesh::start_with("streams-expire", with_feed().await).await;
    is_fed(&mesh).await;
    let expires = unix_now() + 4;
    let token = mesh.keys.first.mint(&claims_with(&json!({ "exp": expires })));
    let mut streams = Vec::new();
    for form in FORMS {
        streams.push((form, OpenStream::open(form, mesh.envoy.address(), &token).await));
    }
    let other = OpenStream::open(Form::Events, mesh.envoy.address(), &mesh.token()).await;
    for (form, stream) in &mut streams {
        stream.ended(SOON).await.unwrap_or_else(|| panic!("{form:?} goes on"));
        let late = unix_now().saturating_sub(expires);
        assert!(unix_now() >= expires && late <= 1, "{form:?}: {late}");
    }
    assert!(other.goes_on().await);
    assert!(wait_until(SOON, async || metric(&mesh, "streams_ended.reason.expired").await == 3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_its_response_gets_the_refusal() {
    let mesh = Mesh::start_with("streams-refused", with_feed().await).await;
    is_fed(&mesh).await;
    let ended = claims();
    let request = Request::get("/api/hang").bearer(&mesh.keys.first.mint(&ended));
    let (address, before) = (mesh.envoy.address(), mesh.upstream.requests());
    let waiting = tokio::spawn(async move { exchange(address, &request).await });
    assert!(wait_until(SOON, async || mesh.upstream.requests() > before).await);
    end_session(&mesh, &ended).await;
    let response = waiting.await.expect("no panic").expect("a response");
    assert_eq!(
        (response.status, response.json()["code"].as_str()),
        (403, Some("SESSION_REVOKED")),
        "{}",
        response.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_outlive_a_short_outage_of_the_service_and_not_a_long_one() {
    let mut mesh = Mesh::start_with("streams-outage", with_feed().await).await;
    is_fed(&mesh).await;
    let mut stream = OpenStream::open(Form::WebSocket, mesh.envoy.address(), &mesh.token()).await;
    mesh.service.as_mut().expect("a service").process().pause();
    tokio::time::sleep(Duration::from_secs(2)).await;
    mesh.service.as_mut().expect("a service").process().resume();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(stream.goes_on().await);
    let paused = Instant::now();
    mesh.service.as_mut().expect("a service").process().pause();
    let end = stream.ended(SOON).await.expect("it ends");
    let took = end - paused;
    mesh.service.as_mut().expect("a service").process().resume();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(7), "{took:?}");
    assert!(wait_until(SOON, async || metric(&mesh, "streams_ended.reason.cannot_tell").await == 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_configuration_that_was_replaced_end_too() {
    let options = MeshOptions { listener_from_file: true, drain: Duration::from_secs(60), ..with_feed().await };
    let mesh = Mesh::start_with("streams-replaced", options).await;
    is_fed(&mesh).await;
    let (ended, other) = (claims(), claims());
    let (token, others) = (mesh.keys.first.mint(&ended), mesh.keys.first.mint(&other));
    let address = mesh.envoy.address();
    let mut streams = Vec::new();
    for token in [&token, &others] {
        streams.push(OpenStream::open(Form::WebSocket, address, token).await);
    }
    let updates = mesh.envoy.stat("listener_manager.listener_modified").await;
    mesh.envoy.update_listener("x-role", "x-rank");
    let is_replaced = async || {
        mesh.envoy.stat("listener_manager.listener_modified").await > updates
            && mesh.envoy.stat("listener_manager.total_listeners_warming").await == 0
    };
    assert!(wait_until(SOON, is_replaced).await);
    // The new configuration follows by itself.
    tokio::time::sleep(LAG * 2).await;
    for token in [&token, &others] {
        streams.push(OpenStream::open(Form::WebSocket, address, token).await);
    }
    let acknowledged = end_session(&mesh, &ended).await;
    for (place, stream) in streams.iter_mut().enumerate() {
        if place % 2 == 1 {
            assert!(stream.goes_on().await, "{place}");
            continue;
        }
        let took = stream.ended(SOON).await.expect("it ends").saturating_duration_since(acknowledged);
        assert!(took <= LAG + TICK + MARGIN, "{place}: {took:?}");
    }
    if !FilterHost::is_native() {
        return;
    }
    // Both configurations of the module report into the same counter.
    assert!(wait_until(SOON, async || metric(&mesh, "streams_ended.reason.revoked").await == 2).await);
}
