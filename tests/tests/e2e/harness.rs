//! The harness itself: that its pieces start, speak to each other, misbehave when told to and stop.
use std::process::Command;
use std::time::Duration;

use harness::{
    Answer, Connection, Directory, Envoy, EnvoyOptions, H2Connection, Redis, Request, Tls, Upstream, certificate,
    exchange, wait_until,
};
use serde_json::json;

fn nobody() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_brings_requests_to_the_upstream_over_both_versions_of_http() {
    let directory = Directory::new("both-versions");
    let upstream = Upstream::start().await;
    let mut envoy = Envoy::start(&directory, EnvoyOptions::new(upstream.address(), nobody(), None)).await;

    let request = Request::new("POST", "/a?b=c").header("X-Twice", "1").header("x-twice", "2").body("four");
    let mut connection = Connection::open(envoy.address()).await.unwrap();
    for _ in 0..2 {
        let response = connection.send(&request).await.unwrap();
        assert_eq!(response.status, 200);
        let echo = response.json();
        assert_eq!(
            (&echo["method"], &echo["path"], &echo["body_bytes"]),
            (&json!("POST"), &json!("/a?b=c"), &json!(4))
        );
        assert_eq!(response.upstream_saw("x-twice"), ["1", "2"]);
        assert_eq!(response.upstream_saw("host"), ["test.example"]);
    }

    let h2 = H2Connection::open(envoy.address()).await.unwrap();
    let response = h2.send(&Request::get("/h2").header("x-twice", "1")).await.unwrap();
    assert_eq!((response.status, response.json()["path"].as_str()), (200, Some("/h2")));

    assert_eq!(upstream.requests(), 3);
    assert_eq!(envoy.stat("http.main.downstream_rq_2xx").await, 3);
    assert!(envoy.allocated_bytes().await > 0);
    assert!(envoy.process().resident_bytes() > 1 << 20);
    assert!(envoy.process().stop(), "{}", envoy.process().log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_refuses_paths_that_two_readers_may_read_differently() {
    let directory = Directory::new("paths");
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(&directory, EnvoyOptions::new(upstream.address(), nobody(), None)).await;

    let send = async |request: Request| exchange(envoy.address(), &request).await.unwrap();
    assert_eq!(send(Request::get("/a%2fb")).await.status, 400);
    assert_eq!(send(Request::get("/a//b/../c")).await.json()["path"], "/a/c");
    let twin = send(Request::get("/").header("x_user_id", "eve").header("x-user-id", "bob")).await;
    assert_eq!((twin.upstream_saw("x_user_id").len(), twin.upstream_saw("x-user-id").len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_envoy_with_a_reason() {
    let directory = Directory::new("wrong");
    let mut options = EnvoyOptions::new(nobody(), nobody(), None);
    options.edit = |bootstrap| bootstrap.replace("merge_slashes", "merge_dashes");
    let reason = Envoy::try_start(&directory, options).await.err().unwrap();
    assert!(reason.contains("merge_dashes"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_listener_speaks_1_3_alone() {
    let directory = Directory::new("tls");
    let (certificate, key) = certificate(directory.path(), "test");
    let upstream = Upstream::start().await;
    let mut options = EnvoyOptions::new(upstream.address(), nobody(), None);
    options.tls = Some(Tls { client_ca: certificate.clone(), certificate: certificate.clone(), key: key.clone() });
    let envoy = Envoy::start(&directory, options).await;

    let handshake = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &envoy.address().to_string(), "-brief"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(handshake(&["-tls1_3"]).contains("TLSv1.3"), "{}", handshake(&["-tls1_3"]));
    assert!(!handshake(&["-tls1_2"]).contains("CONNECTION ESTABLISHED"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    assert!(handshake(&["-cert", &certificate, "-key", &key]).contains("CONNECTION ESTABLISHED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_what_it_was_told_over_a_restart_and_answers_nothing_while_paused() {
    let directory = Directory::new("redis");
    let mut redis = Redis::start(&directory).await;
    assert_eq!(redis.command(&["SET", "key", "a value"]).await.unwrap(), "+OK\r\n");
    redis.process().kill();
    assert!(redis.command(&["PING"]).await.is_err());
    redis.restart().await;
    assert_eq!(redis.command(&["GET", "key"]).await.unwrap(), "$7\r\na value\r\n");

    redis.process().pause();
    let paused = tokio::time::timeout(Duration::from_millis(100), redis.command(&["PING"])).await;
    assert!(paused.is_err());
    redis.process().resume();
    assert!(wait_until(Duration::from_secs(5), async || redis.command(&["PING"]).await.is_ok()).await);

    redis.flush().await;
    assert_eq!(redis.command(&["GET", "key"]).await.unwrap(), "$-1\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_says_what_it_is_told_to_say_and_is_gone_when_dropped() {
    let upstream =
        Upstream::answering(|_| Answer::new(503, "no").header("x-why", "test").after(Duration::from_millis(50))).await;
    let address = upstream.address();
    let response = exchange(address, &Request::get("/")).await.unwrap();
    assert_eq!((response.status, response.header("x-why"), response.text().as_str()), (503, Some("test"), "no"));
    assert!(response.took >= Duration::from_millis(50));
    drop(upstream);
    assert!(wait_until(Duration::from_secs(5), async || exchange(address, &Request::get("/")).await.is_err()).await);
}
