//! The exit codes that scripts rely on.
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
