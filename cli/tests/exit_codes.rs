//! The exit codes that scripts rely on.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::process::{Command, Output};

fn portcullis(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PORTCULLIS_")) {
        command.env_remove(name);
    }
    command.args(words).output().unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn wrong_usage_is_2() {
    let token = file(&"t".repeat(32));
    let token = token.path().to_str().unwrap();
    for words in [
        &["revoke", "nobody"][..],
        &["revoke", "user", "--issuer", "i"],
        &["revoke", "list"],
        &["revoke", "--token-file", token, "token"],
        &["revoke", "--token-file", token, "token", "--id", "x"],
        &["revoke", "--token-file", token, "show", "../x"],
        &["serve"],
    ] {
        let out = portcullis(words);
        assert_eq!(out.status.code(), Some(2), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// They are base64url: one in 64 begins with `-`.
#[test]
fn ids_that_begin_with_a_hyphen_are_ids() {
    let token = file(&"t".repeat(32));
    let token = token.path().to_str().unwrap();
    for id in ["-kGtCUL-KQua6YP8HIss0g", "-hGtCUL-KQua6YP8HIss0g", "--GtCUL-KQua6YP8HIss0g"] {
        for words in [
            &["session", "show", id][..],
            &["session", "end", id],
            &["session", "end", "--subject", "alice", "--except", id],
            &["revoke", "session", "--issuer", "i", "--id", id],
            &["revoke", "key", "--issuer", "i", "--id", id],
            &["revoke", "token", "--issuer", "i", "--id", id],
            &["revoke", "show", id],
            &["revoke", "lift", id],
        ] {
            let common = ["--service", "http://127.0.0.1:1", "--token-file", token];
            let out = portcullis(&[words, &common].concat());
            assert_eq!(out.status.code(), Some(3), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_3() {
    let token = file(&"t".repeat(32));
    let token = token.path().to_str().unwrap();
    let out = portcullis(&["revoke", "--token-file", token, "--service", "http://127.0.0.1:1", "list"]);
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_service_whose_secret_is_too_short_does_not_start() {
    let (short, token) = (file("short"), file(&"t".repeat(32)));
    let (short, token) = (short.path().to_str().unwrap(), token.path().to_str().unwrap());
    let out = portcullis(&["serve", "--secret-file", short, "--admin-token-file", token]);
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains(short) && said.contains("at least 32"), "{said}");
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_log_level_that_is_none_is_an_error_and_mutes_nothing() {
    let (secret, token) = (file(&"s".repeat(32)), file(&"t".repeat(32)));
    for wanted in ["inof", "service=debg"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.env("PORTCULLIS_LOG", wanted).args(["serve", "--secret-file"]);
        let out = command.arg(secret.path()).arg("--admin-token-file").arg(token.path()).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{wanted}: {}", said(&out));
        assert!(said(&out).contains("PORTCULLIS_LOG") && said(&out).contains(wanted), "{}", said(&out));
    }
}

#[test]
fn one_secret_for_filters_and_for_operators_is_an_error() {
    let (secret, copy) = (file(&"s".repeat(32)), file(&format!("{}\n", "s".repeat(32))));
    let secret = secret.path().to_str().unwrap();
    for token in [secret, copy.path().to_str().unwrap()] {
        let out = portcullis(&["serve", "--secret-file", secret, "--admin-token-file", token]);
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        assert!(said(&out).contains("--secret-file") && said(&out).contains("the same secret"), "{}", said(&out));
    }
}

#[test]
fn a_key_that_is_not_found_or_found_twice_is_revoked_for_nobody() {
    let token = file(&"t".repeat(32));
    let key = mint::SigningKey::generate(mint::Alg::EdDSA, "one").public_jwk().unwrap();
    let other = mint::SigningKey::generate(mint::Alg::EdDSA, "one").public_jwk().unwrap();
    let set = file(&serde_json::json!({ "keys": [key, other] }).to_string());
    let jwk = file(&serde_json::json!(key).to_string());
    let [token, set, jwk] = [&token, &set, &jwk].map(|file| file.path().to_str().unwrap());
    let run = |by: &[&str]| {
        let common = ["revoke", "--service", "http://127.0.0.1:1", "--token-file", token, "key", "--issuer", "i"];
        portcullis(&[&common, by].concat())
    };
    let two = run(&["--jwks", set, "--kid", "one"]);
    assert_eq!((two.status.code(), said(&two).contains("2 keys")), (Some(1), true), "{}", said(&two));
    let none = run(&["--jwks", set, "--kid", "two"]);
    assert_eq!((none.status.code(), said(&none).contains("no key")), (Some(1), true), "{}", said(&none));
    let forged = file("eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9.e30.AAAA");
    let none = run(&["--jwks", set, "--signed-token", forged.path().to_str().unwrap()]);
    assert_eq!((none.status.code(), said(&none).contains("verifies")), (Some(1), true), "{}", said(&none));
    // Found: then the service cannot be reached.
    assert_eq!(run(&["--jwk", jwk]).status.code(), Some(3));
    assert_eq!(run(&["--jwk", set]).status.code(), Some(1));
    assert_eq!(run(&[]).status.code(), Some(2));
}

/// A service that answers one request with this, and gives what it was sent.
fn answers_once(body: String) -> (String, std::thread::JoinHandle<String>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut sent, mut bytes) = (String::new(), [0; 4096]);
        let is_whole = |sent: &str| {
            let Some((head, body)) = sent.split_once("\r\n\r\n") else { return false };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        };
        while !is_whole(&sent) {
            let count = stream.read(&mut bytes).unwrap();
            sent.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        sent.split_once("\r\n\r\n").unwrap().1.to_owned()
    });
    (url, asked)
}

/// What was neither revoked nor confirmed must not be skipped by the next run.
#[test]
fn a_bulk_that_is_resumed_sends_each_line_that_was_not_revoked() {
    let (token, lines) = (file(&"t".repeat(32)), file("\"1\"\n\"2\"\n\n\"3\"\n\"4\"\n"));
    let directory = tempfile::tempdir().unwrap();
    let [token, lines] = [&token, &lines].map(|file| file.path().to_str().unwrap());
    let done = directory.path().join("done");
    let run = |url: &str, lines: &str| {
        let common = ["revoke", "--service", url, "--token-file", token, "bulk", "--resume", done.to_str().unwrap()];
        portcullis(&[&common[..], &[lines]].concat())
    };
    for (status, code, said_next) in [(503, 3, "begins at line 4"), (422, 1, "begins at line 4")] {
        let _ = std::fs::remove_file(&done);
        let failed = format!(r#"{{"line":4,"error":{{"status":{status},"code":"c"}}}}"#);
        let summary = r#"{"summary":{"lines":5,"written":3,"failed":1}}"#;
        let (url, asked) =
            answers_once(format!("{{\"line\":1}}\n{{\"line\":2}}\n{failed}\n{{\"line\":5}}\n{summary}\n"));
        let out = run(&url, lines);
        assert_eq!(asked.join().unwrap(), "\"1\"\n\"2\"\n\n\"3\"\n\"4\"");
        assert_eq!(out.status.code(), Some(code), "{}", said(&out));
        assert!(said(&out).contains(said_next), "{}", said(&out));
        let summary = r#"{"summary":{"lines":2,"written":2,"failed":0}}"#;
        let (url, asked) = answers_once(format!("{{\"line\":1}}\n{{\"line\":2}}\n{summary}\n"));
        let out = run(&url, lines);
        assert_eq!(asked.join().unwrap(), "\"3\"\n\"4\"");
        assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    }
    // Another file, which begins differently or is shorter.
    for other in ["\"1\"\n\"2\"\n\n\"3\"\n\"5\"\n\"6\"\n", "\"1\"\n"] {
        let other = file(other);
        let out = run("http://127.0.0.1:1", other.path().to_str().unwrap());
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        assert!(said(&out).contains("done"), "{}", said(&out));
    }
}
