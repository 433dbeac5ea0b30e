use super::*;

pub const SECRET: &str = "a-client-secret-of-at-least-32-bytes";

pub async fn clients(json: &str) -> Result<Clients, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s"), format!("{SECRET}\n")).unwrap();
    std::fs::write(dir.path().join("short"), "short").unwrap();
    std::fs::write(dir.path().join("clients.json"), json).unwrap();
    let clients = Clients::default();
    clients.load(&dir.path().join("clients.json")).await.map_err(|error| error.to_string())?;
    Ok(clients)
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_is_refused_with_the_reason() {
    for (json, reason) in [
        ("{", "cannot be used"),
        (r#"{"clients":[],"x":1}"#, "unknown field"),
        (r#"{"clients":[{"client_id":"a","may":[]}]}"#, "is needed"),
        (r#"{"clients":[{"client_id":"","secret_files":["s"],"may":[]}]}"#, "printable"),
        (r#"{"clients":[{"client_id":"a","secret_files":["short"],"may":[]}]}"#, "at least 32"),
        (r#"{"clients":[{"client_id":"a","secret_files":["absent"],"may":[]}]}"#, "cannot read"),
        (r#"{"clients":[{"client_id":"a","secret_sha256":["xyz"],"may":[]}]}"#, "hexadecimal"),
        (r#"{"clients":[{"client_id":"a","secret_files":["s"],"may":["everything"]}]}"#, "unknown variant"),
        (
            r#"{"clients":[{"client_id":"a","secret_files":["s"],"may":[]},{"client_id":"a","secret_files":["s"],"may":[]}]}"#,
            "twice",
        ),
    ] {
        let error = clients(json).await.map(|_| ()).unwrap_err();
        assert!(error.contains(reason), "{json} gave {error}");
    }
}

#[tokio::test]
async fn a_secret_may_be_kept_as_its_digest_and_several_while_it_rotates() {
    let hash: String = sha256(SECRET.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let zeros = "0".repeat(64);
    let json = format!(r#"{{"clients":[{{"client_id":"a","secret_sha256":["{zeros}","{hash}"],"may":["refresh"]}}]}}"#);
    let clients = clients(&json).await.unwrap();
    let client = clients.verify("a", SECRET.as_bytes()).unwrap();
    assert!(client.may(May::Refresh) && !client.may(May::Revoke));
    assert!(clients.verify("a", b"another").is_none() && clients.verify("b", SECRET.as_bytes()).is_none());
    assert!(clients.may_refresh("a") && !clients.may_refresh("b"));
}
