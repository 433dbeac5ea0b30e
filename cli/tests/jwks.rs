//! `portcullis jwks`: what it says of a key set, and its exit codes.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn portcullis(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis")).args(words).output().unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn key(alg: mint::Alg, kid: &str) -> Value {
    Value::Object(mint::SigningKey::generate(alg, kid).public_jwk().unwrap())
}

fn run(words: &[&str]) -> (i32, Value) {
    let out = portcullis(&[&["jwks", "--json"], words].concat());
    let said = serde_json::from_slice(&out.stdout).unwrap_or_default();
    (out.status.code().unwrap(), said)
}

/// Answers each path with a status and a body, for as long as the test runs.
fn provider(answers: Vec<(&'static str, u16, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let own = base.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let (status, body) = answers
                .iter()
                .find(|(known, ..)| *known == path)
                .map_or((404, String::new()), |(_, status, body)| (*status, body.replace("BASE", &own)));
            let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
            let _ = write!(stream, "{head}cache-control: max-age=60\r\nconnection: close\r\n\r\n{body}");
        }
    });
    base
}

#[test]
fn says_of_each_key_what_it_would_verify_or_why_it_is_left_out() {
    let weak = json!({ "kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB" });
    let keys =
        json!({ "keys": [key(mint::Alg::ES256, "good"), weak, { "kty": "EC", "crv": "secp256k1", "kid": "k1" }] });
    let set = file(&keys.to_string());
    let path = set.path().to_str().unwrap();
    let (code, said) = run(&["--file", path]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["keys"][0]["kid"], "good");
    assert_eq!((&said["keys"][0]["kty"], &said["keys"][0]["crv"]), (&json!("EC"), &json!("P-256")));
    assert_eq!(said["keys"][0]["algorithms"], json!(["ES256"]));
    assert_eq!(said["keys"][0]["thumbprint"].as_str().unwrap().len(), 43);
    assert!(said["left_out"][0].as_str().unwrap().contains("at least 2048"), "{said}");
    let text = String::from_utf8(portcullis(&["jwks", "--file", path]).stdout).unwrap();
    assert!(text.contains("1 keys, 2 left out") && text.contains("kid good: EC P-256, verifies ES256"), "{text}");

    let (code, said) = run(&["--file", path, "--alg", "RS256"]);
    assert_eq!((code, &said["ok"]), (1, &json!(false)), "no key for what the issuer may use: {said}");
}

#[test]
fn p521_keys_of_one_kid_and_keys_for_encryption_are_told_apart() {
    let mut encrypting = key(mint::Alg::RS256, "enc");
    encrypting["use"] = "enc".into();
    let twins = [key(mint::Alg::ES512, "twin"), key(mint::Alg::ES512, "twin")];
    let keys = json!({ "keys": [twins[0], twins[1], twins[0], encrypting] });
    // With a byte order mark, as some servers write it.
    let set = file(&format!("\u{feff}{keys}"));
    let path = set.path().to_str().unwrap();
    let (code, said) = run(&["--file", path]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((said["keys"].as_array().unwrap().len(), &said["left_out"]), (2, &json!([])), "{said}");
    assert_eq!((&said["keys"][1]["kid"], &said["keys"][1]["crv"]), (&json!("twin"), &json!("P-521")));
    assert_eq!(said["keys"][0]["algorithms"], json!(["ES512"]));
    assert_eq!(said["for_encryption"], json!(["keys[3] (kid enc)"]));
    let text = String::from_utf8(portcullis(&["jwks", "--file", path]).stdout).unwrap();
    assert!(text.contains("2 keys, 0 left out") && text.contains("for encryption"), "{text}");

    for (text, says) in [("\u{1f}\u{8b}", "is not JSON"), ("<html>", "HTML or XML"), ("", "empty")] {
        let (code, said) = run(&["--file", file(text).path().to_str().unwrap()]);
        assert!(code == 1 && said["error"].as_str().unwrap().contains(says), "{said}");
    }
}

#[test]
fn fetches_by_url_by_discovery_and_by_what_a_configuration_says() {
    let set = json!({ "keys": [key(mint::Alg::EdDSA, "one")] }).to_string();
    let base = provider(vec![
        ("/keys", 200, set),
        ("/.well-known/openid-configuration", 200, r#"{"issuer":"BASE","jwks_uri":"BASE/keys"}"#.to_owned()),
        ("/moved", 302, String::new()),
        ("/none", 200, "<html>".to_owned()),
    ]);
    let at = |path: &str| format!("{base}{path}");
    let (code, said) = run(&["--url", &at("/keys")]);
    assert_eq!((code, &said["max_age"], &said["keys"][0]["kid"]), (0, &json!(60), &json!("one")), "{said}");
    let document = at("/.well-known/openid-configuration");
    assert_eq!(run(&["--url", &document, "--issuer", &base]).0, 0);
    let (code, said) = run(&["--url", &document, "--issuer", "https://another.example"]);
    assert!(code == 1 && said["error"].as_str().unwrap().contains("another issuer"), "{said}");
    assert_eq!(run(&["--url", &at("/none")]).0, 1);
    for unreachable in [at("/moved"), at("/absent"), "http://127.0.0.1:1/keys".to_owned()] {
        assert_eq!(run(&["--url", &unreachable]).0, 3, "{unreachable}");
    }

    let config = json!({
        "issuers": [{
            "name": "main", "issuer": base, "audiences": ["api"], "algorithms": ["EdDSA"],
            "jwks": { "cluster": "idp", "discovery": true },
        }],
        "rules": [{ "name": "all", "access": "required", "match": {} }],
    });
    let config = file(&config.to_string());
    let config = config.path().to_str().unwrap();
    for name in ["main", &base] {
        assert_eq!(run(&["--config", config, "--issuer", name]).0, 0, "{name}");
    }
    assert_eq!(run(&["--config", config, "--issuer", "nobody"]).0, 1);
}

#[test]
fn a_map_of_key_ids_to_pem_is_shown_as_a_key_set() {
    let public = mint::SigningKey::generate(mint::Alg::ES256, "a").public_pem().unwrap();
    let set = file(&json!({ "iap": public, "other": "-----BEGIN CERTIFICATE-----" }).to_string());
    let path = set.path().to_str().unwrap();
    let (code, said) = run(&["--file", path]);
    assert_eq!((code, &said["keys"][0]["kid"]), (0, &json!("iap")), "{said}");
    assert_eq!(said["keys"][0]["algorithms"], json!(["ES256"]));
    let left_out = said["left_out"][0].as_str().unwrap();
    assert_eq!(left_out, "kid other: it is no single X.509 certificate in PEM and DER");
}

#[test]
fn wrong_usage_is_2() {
    for words in [
        &["jwks"][..],
        &["jwks", "--issuer", "a"],
        &["jwks", "--config", "f"],
        &["jwks", "--url", "http://a", "--alg", "none"],
    ] {
        assert_eq!(portcullis(words).status.code(), Some(2), "{words:?}");
    }
}
