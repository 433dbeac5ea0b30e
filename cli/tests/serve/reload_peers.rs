//! SIGHUP with other providers and other secrets of regions. What is pending, and requests in progress, are not lost.
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use wire::Secret;
use wire::check::Needs;
use wire::join::{Asking, Question};

use super::reload::{Server, secret, secrets};
use super::*;

const PROVIDER: &str = "https://op.example";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn logout_token(key: &SigningKey, jti: &str) -> String {
    let mut header = json!({ "alg": key.alg().name(), "typ": "logout+jwt" });
    if let Some(kid) = key.kid() {
        header["kid"] = kid.into();
    }
    let claims = json!({
        "iss": PROVIDER, "aud": "us", "iat": now(), "exp": now() + 60, "jti": jti, "sid": jti,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    key.sign(&header.to_string(), &claims.to_string())
}

fn report_logout(agent: &ureq::Agent, listen: &str, token: &str) -> u16 {
    let request = agent.post(format!("http://{listen}/oauth2/backchannel-logout"));
    request.send_form([("logout_token", token)]).unwrap().status().as_u16()
}

/// Writes the providers file, and returns the options with it.
fn providers(server: &Server, common: &str, providers: &Value) -> String {
    std::fs::write(server.desk.path("providers.json"), providers.to_string()).unwrap();
    format!("{common}providers-file = {:?}\n", server.desk.path("providers.json"))
}

/// Serves this key set until the test ends.
fn key_set(key: &SigningKey) -> String {
    let set = json!({ "keys": [key.public_jwk().unwrap()] }).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
            let _ = stream.write_all(format!("{head} {}\r\n\r\n{set}", set.len()).as_bytes());
        }
    });
    url
}

#[test]
fn a_reload_takes_other_providers_and_the_secrets_of_providers() {
    let desk = Desk::new("");
    let shared = "shared-secret".repeat(4);
    let common = secrets(&desk, "admin-token", &["shared-secret"]);
    let mut server = Server::start(desk, &common);
    let [old, new] = ["former-client", "latest-client"].map(|name| {
        let text = secret(&server.desk, name);
        SigningKey::from_secret(Alg::HS256, None, text.as_bytes()).unwrap()
    });
    let report = |server: &Server, token: &str| report_logout(&server.agent, &server.listen, token);
    assert_eq!(report(&server, &logout_token(&old, "a")), 404, "no provider may");

    let client = server.desk.path("client");
    std::fs::copy(server.desk.path("former-client"), &client).unwrap();
    let one = json!({ "issuer": PROVIDER, "audiences": ["us"], "algorithms": ["HS256"], "secret_file": client, "logout": {} });
    let options = providers(&server, &common, &json!({ "providers": [one] }));
    assert!(!server.reload(&options).contains("restart"));
    let token = logout_token(&old, "a");
    assert_eq!(report(&server, &token), 200);
    assert_eq!(server.is_dead_of(&shared, PROVIDER, "a"), Some(true));

    // The same file, and another content of a file that it names.
    std::fs::copy(server.desk.path("latest-client"), &client).unwrap();
    server.reload(&options);
    assert_eq!((report(&server, &logout_token(&old, "b")), report(&server, &logout_token(&new, "c"))), (400, 200));
    assert_eq!(
        (server.is_dead_of(&shared, PROVIDER, "b"), server.is_dead_of(&shared, PROVIDER, "c")),
        (Some(false), Some(true))
    );

    // What an editor leaves behind for a moment.
    for (half, reason) in
        [("", "providers"), (r#"{"providers": [{"issuer": "ht"#, "providers"), (r#"{"providers": [{}]}"#, "issuer")]
    {
        std::fs::write(server.desk.path("providers.json"), half).unwrap();
        server.process.signal("-HUP");
        let said = server.reloaded();
        assert!(said.contains("nothing was changed") && said.contains(reason), "{half}: {said}");
        assert_eq!(report(&server, &logout_token(&new, &format!("d{}", half.len()))), 200);
    }
    server.reload(&common);
    assert_eq!(report(&server, &logout_token(&new, "e")), 404, "no provider may any more");
}

#[test]
fn a_logout_that_waits_for_keys_is_carried_out_by_the_provider_that_a_reload_brings() {
    let desk = Desk::new("");
    let shared = "shared-secret".repeat(4);
    let common = secrets(&desk, "admin-token", &["shared-secret"]);
    let mut server = Server::start(desk, &common);
    let key = SigningKey::generate(Alg::ES256, "k");
    let with = |url: &str| json!({ "providers": [{ "issuer": PROVIDER, "audiences": ["us"], "algorithms": ["ES256"], "jwks_uri": url, "logout": {} }] });
    // Nobody listens there.
    let unreachable = providers(&server, &common, &with("http://127.0.0.1:1/jwks"));
    assert!(!server.reload(&unreachable).contains("restart"));
    let (agent, listen) = (server.agent.clone(), server.listen.clone());
    let token = logout_token(&key, "a");
    let waiting = thread::spawn(move || report_logout(&agent, &listen, &token));
    let started = Instant::now();
    while !metrics(&server).contains("portcullis_provider_events_pending 1") {
        assert!(started.elapsed() < Duration::from_secs(10) && !waiting.is_finished());
        thread::sleep(Duration::from_millis(20));
    }
    let reachable = providers(&server, &common, &with(&key_set(&key)));
    server.reload(&reachable);
    let status = waiting.join().unwrap();
    assert!(matches!(status, 200 | 503), "{status}");
    let started = Instant::now();
    while server.is_dead_of(&shared, PROVIDER, "a") != Some(true) {
        assert!(started.elapsed() < Duration::from_secs(10), "the logout is lost");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(metrics(&server).contains("portcullis_provider_events_pending 0"));
}

fn metrics(server: &Server) -> String {
    let mut answer = server.agent.get(format!("http://{}/metrics", server.admin)).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

/// As another region with this secret, which is held for `wait` if nothing changes.
fn join(agent: &ureq::Agent, listen: &str, secret: &str, wait: Duration) -> u16 {
    let derived = Secret::new(secret.as_bytes()).unwrap().derive();
    let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: now() };
    let asking = Asking::new(&derived, [7; 16], needs, &Question::Changes { cursor: Default::default(), wait });
    let mut answer = agent.post(format!("http://{listen}{}", wire::join::PATH)).send(asking.bytes()).unwrap();
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_vec().unwrap();
    if status == 200 {
        asking.read_reply(&derived, status, &body).unwrap().unwrap();
    }
    status
}

#[test]
fn a_reload_takes_other_secrets_of_regions_and_finishes_what_began_with_the_former_ones() {
    let desk = Desk::new("");
    let common = secrets(&desk, "admin-token", &["shared-secret"]);
    let [old, new] = ["former-region", "latest-region"].map(|name| secret(&desk, name));
    let with = |desk: &Desk, names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| desk.path(name)).collect();
        format!("{common}join-secret-file = {files:?}\n")
    };
    let first = with(&desk, &["former-region"]);
    let mut server = Server::start(desk, &first);
    let asks = |server: &Server, secret: &str| join(&server.agent, &server.listen, secret, Duration::ZERO);
    assert_eq!((asks(&server, &old), asks(&server, &new)), (200, 401));

    let both = with(&server.desk, &["latest-region", "former-region"]);
    assert!(!server.reload(&both).contains("restart"));
    assert_eq!((asks(&server, &old), asks(&server, &new)), (200, 200));

    let (agent, listen, held) = (server.agent.clone(), server.listen.clone(), old.clone());
    let in_progress = thread::spawn(move || join(&agent, &listen, &held, Duration::from_secs(1)));
    thread::sleep(Duration::from_millis(200));
    let last = with(&server.desk, &["latest-region"]);
    server.reload(&format!("{last}max-requests = 1\n"));
    assert_eq!((asks(&server, &old), asks(&server, &new)), (401, 200));
    assert_eq!(in_progress.join().unwrap(), 200, "it is answered with the secret that it was made with");

    // Whether regions may join at all needs a restart, and is no half of a reload.
    let said = server.reload(&common);
    assert!(said.contains(r#""options":"join-secret-file""#), "{said}");
    assert_eq!(asks(&server, &new), 200);
}
