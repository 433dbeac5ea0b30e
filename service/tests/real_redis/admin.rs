//! Who may call the admin listener, how often, and what is remembered of it.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use wire::Kind;

use crate::support::*;

fn entries(service: &Running) -> Vec<Value> {
    let (status, page) = service.admin("GET", "/v1/audit?limit=1000", "");
    assert_eq!(status, 200, "{page}");
    page["entries"].as_array().unwrap().clone()
}

fn find<'a>(entries: &'a [Value], action: &str) -> &'a Value {
    entries.iter().find(|entry| entry["action"] == action).unwrap_or_else(|| panic!("no {action} in {entries:?}"))
}

#[test]
fn every_call_is_remembered_with_who_what_and_why_and_no_token_is() {
    let (redis, service) = started();
    let jwt = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwianRpIjoiajEifQ.c2ln";
    let body = json!({ "kind": "user", "issuer": ISSUER, "id": "alice", "reason": "left" }).to_string();
    let made = service.admin("POST", "/v1/revocations", &body).1;
    service.admin("POST", "/v1/revocations", &json!({ "token": jwt }).to_string());
    service.admin("GET", "/v1/revocations", "");
    service.admin("DELETE", &format!("/v1/revocations/{}", made["key"].as_str().unwrap()), "");
    service.admin("POST", "/v1/revocations", "nonsense");
    service.admin("POST", "/v1/revocations/bulk", &format!("{}\nx\n", asking(Kind::Session, "s")).repeat(2));
    service.admin_text("GET", "/v1/revocations", Some("wrong-wrong-wrong-wrong-wrong-wrong-"), "");
    service.admin("GET", &format!("/v1/revocations/{jwt}"), "");
    let entries = entries(&service);
    let revoked = find(&entries, "revoke");
    for (name, value) in [
        ("by", "admin"),
        ("kind", "user"),
        ("iss", ISSUER),
        ("sub", "alice"),
        ("reason", "left"),
        ("outcome", "done"),
        ("from", "127.0.0.1"),
    ] {
        assert_eq!(revoked[name], value, "{name} in {revoked}");
    }
    assert!(revoked["at"].as_u64().unwrap().abs_diff(now()) <= 5);
    assert!(entries.iter().any(|entry| entry["action"] == "revoke" && entry["outcome"] == "400"), "{entries:?}");
    assert!(find(&entries, "lift")["reason"].as_str().unwrap().contains("alice"));
    assert_eq!(find(&entries, "GET /v1/revocations")["outcome"], "done");
    assert_eq!(find(&entries, "revoke.bulk")["reason"], "4 lines, 2 written, 2 failed");
    let refused = entries.iter().find(|entry| entry["by"] == "nobody").unwrap();
    assert_eq!(refused["outcome"], "401");
    let all = serde_json::to_string(&entries).unwrap();
    for secret in [jwt, "c2ln", ADMIN, "wrong-wrong"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(!redis.ask(&["XRANGE", "portcullis:{00}:audit", "-", "+"]).contains("alice"));
}

#[test]
fn the_stream_is_read_from_where_one_was_and_trimmed_by_age() {
    let redis = Redis::start();
    let audit_retention = Duration::from_secs(1);
    let mut options = options(&redis);
    options.admin.audit_retention = audit_retention;
    let service = Running::start(options);
    service.revoke(Kind::User, "alice");
    let (_, page) = service.admin("GET", "/v1/audit", "");
    let next = page["next"].as_str().unwrap().to_owned();
    service.revoke(Kind::User, "bob");
    let after = |next: &str| service.admin("GET", &format!("/v1/audit?after={next}"), "").1;
    let page = after(&next);
    // The reading of the first page is remembered too, that of what came since is not.
    let seen: Vec<&str> =
        page["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(seen, ["GET /v1/audit", "revoke"]);
    assert_eq!(after(page["next"].as_str().unwrap())["entries"], json!([]));
    // Nobody reads all of it unseen by beginning as if that were the next page.
    after("0-0");
    let last = after(page["next"].as_str().unwrap())["entries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["action"], "GET /v1/audit");
    assert_eq!(service.admin("GET", "/v1/audit?after=$", "").1["field"], "after");
    assert_eq!(service.admin("GET", "/v1/audit?limit=1001", "").1["field"], "limit");
    // `~` trims whole nodes of the stream, of 100 entries by default.
    for _ in 0..250 {
        service.admin("GET", "/v1/revocations", "");
    }
    std::thread::sleep(Duration::from_millis(1200));
    // What is too old is not shown any more, though it is not trimmed before something is added.
    let from = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() - 1000;
    for path in ["/v1/audit?limit=1000", "/v1/audit?limit=1000&after=0", "/v1/audit?limit=1000&after=1-1"] {
        let (_, page) = service.admin("GET", path, "");
        for entry in page["entries"].as_array().unwrap() {
            let millis: u128 = entry["id"].as_str().unwrap().split('-').next().unwrap().parse().unwrap();
            assert!(millis >= from, "{path}: {entry} is older than {from}");
        }
    }
    // One of two is not the one in sixteen that trims by number.
    (0..2).for_each(|_| drop(service.admin("GET", "/v1/revocations", "")));
    assert!(length(&redis) <= 102, "{}", length(&redis));
}

#[test]
fn strangers_cannot_push_out_of_the_stream_what_is_to_be_kept_for_months() {
    let (_redis, service) = started();
    let until = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < until {
        service.admin_text("GET", "/v1/revocations", Some("wrong-wrong-wrong-wrong-wrong-wrong"), "");
    }
    let (_, page) = service.admin("GET", "/v1/audit", "");
    let refused = page["entries"].as_array().unwrap().iter().filter(|entry| entry["by"] == "nobody");
    assert_eq!(refused.count(), 1, "{page}");
}

fn length(redis: &Redis) -> u32 {
    redis.ask(&["XLEN", "portcullis:{00}:audit"]).trim_start_matches(':').trim_end().parse().unwrap()
}

#[test]
fn the_stream_cannot_fill_redis_however_young_its_entries_are() {
    let redis = Redis::start();
    let service = Running::start(options(&redis));
    // One trimming takes away 10,000 at the most.
    let fill = "for _ = 1, 100500 do redis.call('XADD', KEYS[1], '*', 'e', '') end";
    (0..10).for_each(|_| drop(redis.ask(&["EVAL", fill, "1", "portcullis:{00}:audit"])));
    (0..20).for_each(|_| drop(service.admin("GET", "/v1/revocations", "")));
    assert!(length(&redis) <= 1_000_200, "{}", length(&redis));
}

#[test]
fn a_caller_that_asks_too_often_is_told_so_and_probes_are_not() {
    let redis = Redis::start();
    let mut options = options(&redis);
    options.admin.admin_rate = 5;
    let service = Running::start(options);
    let statuses: Vec<u16> = (0..20).map(|_| service.admin("GET", "/v1/revocations", "").0).collect();
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 5, "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(service.admin_text("GET", "/healthz", None, "").0, 200);
    eventually(Duration::from_secs(5), || (service.admin("GET", "/v1/revocations", "").0 == 200).then_some(()));
    // Those who guess get less and less to hear, and take nothing from who knows.
    let guesses: Vec<u16> = (0..200).map(|_| service.admin_text("GET", "/v1/audit", Some("guess"), "").0).collect();
    assert!(guesses.contains(&401) && guesses.contains(&429), "{guesses:?}");
    eventually(Duration::from_secs(5), || (service.admin("GET", "/v1/revocations", "").0 == 200).then_some(()));
}

struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Self { dir };
        authority.openssl(&["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"]);
        authority
    }

    fn sign(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        let basic = "basicConstraints=critical,CA:FALSE";
        self.openssl(&[
            "-subj", &subject, "-addext", &names, "-addext", basic, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout",
            &key, "-out", &pem,
        ]);
        (self.dir.path().join(pem), self.dir.path().join(key))
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn openssl(&self, more: &[&str]) {
        let made = Command::new("openssl")
            .current_dir(self.dir.path())
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
            .args(more)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

fn pem(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn agent(ca: &Path, client: Option<&(PathBuf, PathBuf)>) -> ureq::Agent {
    let root = Certificate::from_pem(&pem(ca)).unwrap();
    let mut tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root]));
    if let Some((certificate, key)) = client {
        let chain = [Certificate::from_pem(&pem(certificate)).unwrap()];
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, PrivateKey::from_pem(&pem(key)).unwrap())));
    }
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(5)));
    ureq::Agent::new_with_config(config.tls_config(tls.build()).build())
}

#[test]
fn a_certificate_of_the_right_authority_and_name_is_enough_and_any_other_is_not() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.sign("server", "IP:127.0.0.1");
    let operator = ours.sign("operator", "URI:spiffe://mesh/operator,DNS:ops.example");
    let other = ours.sign("other", "URI:spiffe://mesh/other");
    let stranger = theirs.sign("operator", "URI:spiffe://mesh/operator");
    let redis = Redis::start();
    let start = |require_certificate| {
        let mut options = options(&redis);
        options.admin.admin_tls_cert = Some(certificate.clone());
        options.admin.admin_tls_key = Some(key.clone());
        options.admin.admin_client_ca = Some(ours.ca());
        options.admin.admin_client_names = vec!["spiffe://mesh/operator".into()];
        options.admin.admin_require_certificate = require_certificate;
        Running::start(options)
    };
    let ask = |service: &Running, agent: &ureq::Agent, path: &str, bearer: Option<&str>| {
        let mut request = agent.get(format!("https://{}{path}", service.at.admin));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        request.call().map(|mut answer| (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())).ok()
    };
    let status = |answer: Option<(u16, String)>| answer.map(|(status, _)| status);
    let path = "/v1/revocations";
    let service = start(false);
    let ca = ours.ca();
    assert_eq!(status(ask(&service, &agent(&ca, Some(&operator)), path, None)), Some(200));
    assert_eq!(status(ask(&service, &agent(&ca, Some(&other)), path, None)), Some(401));
    assert_eq!(status(ask(&service, &agent(&ca, Some(&other)), path, Some(ADMIN))), Some(200));
    assert_eq!(status(ask(&service, &agent(&ca, None), path, None)), Some(401));
    assert_eq!(status(ask(&service, &agent(&ca, None), path, Some(ADMIN))), Some(200));
    assert_eq!(status(ask(&service, &agent(&ca, Some(&stranger)), path, Some(ADMIN))), None, "the handshake fails");
    assert_eq!(status(ask(&service, &agent(&theirs.ca(), Some(&operator)), path, None)), None, "another server");
    let (_, audit) = ask(&service, &agent(&ca, Some(&operator)), "/v1/audit", None).unwrap();
    assert!(audit.contains("\"by\":\"certificate:spiffe://mesh/operator\""), "{audit}");
    // In the clear there is nothing.
    let plain = ureq::Agent::new_with_config(ureq::Agent::config_builder().build());
    assert!(plain.get(format!("http://{}/healthz", service.at.admin)).call().is_err());
    drop(service);
    let strict = start(true);
    assert_eq!(status(ask(&strict, &agent(&ca, None), path, Some(ADMIN))), Some(401));
    assert_eq!(status(ask(&strict, &agent(&ca, Some(&other)), path, Some(ADMIN))), Some(401));
    assert_eq!(status(ask(&strict, &agent(&ca, Some(&operator)), path, None)), Some(200));
    assert_eq!(status(ask(&strict, &agent(&ca, None), "/healthz", None)), Some(200));
}

#[test]
fn the_api_description_is_served_and_every_route_of_it_is_there() {
    let redis = Redis::start();
    let sessions = ["--session-issuer", ISSUER, "--session-audience", "api"];
    let service = Running::start(options_with(&redis, &sessions));
    let (status, served) = service.admin_text("GET", "/openapi.json", None, "");
    assert_eq!((status, &served), (200, &service::admin_document()));
    for (at, document) in [(service.at.admin, served), (service.at.listen, service::data_document())] {
        let document: Value = serde_json::from_str(&document).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, described) in methods.as_object().unwrap() {
                // Served where there are providers, whose own tests ask for them.
                if described["tags"][0] == "provider events" {
                    continue;
                }
                let path = path.replace("{sid}", "x").replace("{subject}", "x").replace("{key}", "x");
                let request = ureq::http::Request::builder()
                    .method(method.to_uppercase().as_str())
                    .uri(format!("http://{at}{path}"));
                let config = ureq::Agent::config_builder().http_status_as_error(false).build();
                let answer = ureq::Agent::new_with_config(config).run(request.body(()).unwrap()).unwrap();
                let status = answer.status().as_u16();
                assert!(status != 404 && status != 405, "{method} {path}: {status}");
                assert!(described["summary"].is_string() && described["responses"].is_object(), "{method} {path}");
                let guarded = at == service.at.admin && described["tags"][0] != "health";
                assert_eq!(status == 401, guarded || path.starts_with("/oauth2/") && status == 401, "{method} {path}");
                assert_eq!(
                    described.get("security").is_some(),
                    guarded || path.starts_with("/oauth2/"),
                    "{method} {path}"
                );
            }
        }
    }
}

/// Whoever adds a route adds it with its description, or here.
const UNDESCRIBED: &[&str] = &["/openapi.json", "/operator", "/operator/", "/operator/{file}"];

#[test]
fn no_route_is_added_without_its_description() {
    let mut seen = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for after in std::fs::read_to_string(&path).unwrap().split(".route(").skip(1) {
                let named = after.trim_start().strip_prefix('"').and_then(|text| text.split('"').next());
                assert!(named.is_some_and(|named| UNDESCRIBED.contains(&named)), "{}: {named:?}", path.display());
                seen += 1;
            }
        }
    }
    assert_eq!(seen, UNDESCRIBED.len());
}
