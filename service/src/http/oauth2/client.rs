//! The clients of the OAuth 2.0 endpoints: read from a file, and again when it changes; known by their secrets
//! (RFC 6749 section 2.3.1).
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::time::sleep;

use super::error::OAuthError;
use super::form::Form;

/// As for every secret of ours: what is shorter can be guessed, and its digest undone.
const MIN_SECRET_BYTES: usize = 32;
const MAX_CLIENTS: usize = 10_000;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum May {
    Introspect,
    Refresh,
    Revoke,
}

/// Who is asking, after its secret was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    may: Vec<May>,
}

/// All clients, as the file last had them.
#[derive(Debug, Default)]
pub struct Clients(RwLock<Arc<HashMap<String, Known>>>);

struct Known {
    /// More than one while the secret rotates.
    secrets: Vec<[u8; 32]>,
    may: Vec<May>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clients: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    client_id: String,
    #[serde(default)]
    secret_sha256: Vec<String>,
    #[serde(default)]
    secret_files: Vec<PathBuf>,
    may: Vec<May>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the clients file {path} cannot be used: {source}")]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("the clients file has more than {MAX_CLIENTS} clients")]
    TooMany,
    #[error("client `{id}`: {what}")]
    Client { id: String, what: &'static str },
}

impl Client {
    /// # Errors
    /// `unauthorized_client`.
    pub fn must(&self, may: May) -> Result<(), OAuthError> {
        if self.may.contains(&may) { Ok(()) } else { Err(OAuthError::UnauthorizedClient) }
    }
}

impl Clients {
    /// # Errors
    /// The first thing that is wrong.
    pub async fn load(&self, path: &Path) -> Result<(), ClientsError> {
        let bytes = read(path).await?;
        let form = |source| ClientsError::Form { path: path.to_path_buf(), source };
        let file: File = serde_json::from_slice(&bytes).map_err(form)?;
        if file.clients.len() > MAX_CLIENTS {
            return Err(ClientsError::TooMany);
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut clients = HashMap::new();
        for listed in file.clients {
            let id = listed.client_id.clone();
            let wrong = |what| ClientsError::Client { id: id.clone(), what };
            if id.is_empty() || !id.bytes().all(|c| (0x20..=0x7e).contains(&c)) {
                return Err(wrong("`client_id` must be printable ASCII (RFC 6749 appendix A.1)"));
            }
            let mut secrets = Vec::new();
            for text in &listed.secret_sha256 {
                secrets.push(from_hex(text).ok_or(wrong("`secret_sha256` must be 64 hexadecimal digits"))?);
            }
            for secret in &listed.secret_files {
                let bytes = read(&directory.join(secret)).await?;
                let secret = bytes.trim_ascii();
                if secret.len() < MIN_SECRET_BYTES || !secret.iter().all(|c| (0x20..=0x7e).contains(c)) {
                    return Err(wrong("a secret must be at least 32 characters of printable ASCII"));
                }
                secrets.push(sha256(secret));
            }
            if secrets.is_empty() {
                return Err(wrong("`secret_sha256` or `secret_files` is needed"));
            }
            if clients.insert(listed.client_id, Known { secrets, may: listed.may }).is_some() {
                return Err(wrong("is there twice"));
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(clients);
        Ok(())
    }

    /// Who sends this request: by Basic, or by `client_id` and `client_secret` in the body, and never by both.
    ///
    /// # Errors
    /// `invalid_client`, or `invalid_request` for two ways at once.
    pub fn authenticate(&self, headers: &HeaderMap, form: &Form) -> Result<Client, OAuthError> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (id, secret, by_header) = match (lines.next(), lines.next()) {
            (Some(line), None) => {
                if form.get("client_secret").is_some() {
                    return Err(OAuthError::InvalidRequest("the client authenticates in two ways at once"));
                }
                let (id, secret) = basic(line.as_bytes()).ok_or(OAuthError::InvalidClient { challenge: true })?;
                if form.get("client_id").is_some_and(|other| other != id) {
                    return Err(OAuthError::InvalidRequest("`client_id` is not the client that authenticates"));
                }
                (id, secret, true)
            }
            (Some(_), Some(_)) => return Err(OAuthError::InvalidRequest("there is more than one Authorization")),
            (None, _) => match (form.get("client_id"), form.get("client_secret")) {
                (Some(id), Some(secret)) => (id.to_owned(), secret.to_owned(), false),
                _ => return Err(OAuthError::InvalidClient { challenge: true }),
            },
        };
        let clients = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let offered = sha256(secret.as_bytes());
        let known = clients.get(&id);
        // Who is not known takes as long as who is.
        let nobody = Known { secrets: vec![[0; 32]], may: Vec::new() };
        let compared = known.unwrap_or(&nobody);
        let right = compared
            .secrets
            .iter()
            .fold(false, |right, kept| right | constant_time::verify_slices_are_equal(kept, &offered).is_ok());
        match known {
            Some(known) if right => Ok(Client { id, may: known.may.clone() }),
            _ => Err(OAuthError::InvalidClient { challenge: by_header }),
        }
    }

    /// May this client refresh? None that is not known may.
    pub fn may_refresh(&self, id: &str) -> bool {
        let clients = self.0.read().unwrap_or_else(PoisonError::into_inner);
        clients.get(id).is_some_and(|known| known.may.contains(&May::Refresh))
    }
}

/// Reads the file again and again, for as long as `clients` is used by somebody else: secrets may be in other files.
pub async fn watch(clients: Arc<Clients>, path: PathBuf) {
    let mut said = String::new();
    while Arc::strong_count(&clients) > 1 {
        sleep(PAUSE).await;
        match clients.load(&path).await {
            Ok(()) => said.clear(),
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(%error, "the clients stay as they were");
                    said = error;
                }
            }
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("may", &self.may).finish_non_exhaustive()
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, ClientsError> {
    tokio::fs::read(path).await.map_err(|source| ClientsError::Read { path: path.to_path_buf(), source })
}

/// Both halves are form-encoded before they are joined (RFC 6749 section 2.3.1).
fn basic(line: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = line.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decoded(id)?, decoded(secret)?))
}

fn decoded(text: &str) -> Option<String> {
    // One value without a name: what could end a value is refused before.
    if text.contains(['&', '=']) {
        return None;
    }
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    Some(pairs.next().map(|(name, _)| name.into_owned()).unwrap_or_default())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-client-secret-of-at-least-32-bytes";

    async fn clients(json: &str) -> Result<Clients, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s"), format!("{SECRET}\n")).unwrap();
        std::fs::write(dir.path().join("short"), "short").unwrap();
        std::fs::write(dir.path().join("clients.json"), json).unwrap();
        let clients = Clients::default();
        clients.load(&dir.path().join("clients.json")).await.map_err(|error| error.to_string())?;
        Ok(clients)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    fn basic_of(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
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
    async fn a_client_is_known_in_either_way_and_never_in_both() {
        let json = r#"{"clients":[{"client_id":"a:b","secret_files":["s"],"may":["introspect"]}]}"#;
        let clients = clients(json).await.unwrap();
        let ask = |lines: &[&str], body: &str| {
            clients.authenticate(&headers(lines), &Form::parse(body.as_bytes()).unwrap()).map(|client| client.id)
        };
        let good = basic_of(&format!("a%3Ab:{SECRET}"));
        let refused = |challenge| Err(OAuthError::InvalidClient { challenge });
        assert_eq!(ask(&[&good], ""), Ok("a:b".to_owned()));
        assert_eq!(ask(&[&good.replace("Basic", "bAsIc")], "client_id=a:b"), Ok("a:b".to_owned()));
        assert_eq!(ask(&[], &format!("client_id=a%3Ab&client_secret={SECRET}")), Ok("a:b".to_owned()));
        assert_eq!(ask(&[], ""), refused(true));
        assert_eq!(ask(&[], "client_id=a:b"), refused(true));
        assert_eq!(ask(&[], &format!("client_id=a&client_secret={SECRET}")), refused(false));
        assert_eq!(ask(&[], "client_id=a:b&client_secret=x"), refused(false));
        for bad in [
            "Basic",
            "Basic ",
            "Basic !",
            "Bearer x",
            &basic_of("a:b"),
            &basic_of("a%3Ab:"),
            &basic_of(":"),
            &basic_of(&format!("a%3Ab:{SECRET}x")),
        ] {
            assert_eq!(ask(&[bad], ""), refused(true), "{bad}");
        }
        assert!(matches!(ask(&[&good], "client_secret=x"), Err(OAuthError::InvalidRequest(_))));
        assert!(matches!(ask(&[&good], "client_id=other"), Err(OAuthError::InvalidRequest(_))));
        assert!(matches!(ask(&[&good, &good], ""), Err(OAuthError::InvalidRequest(_))));
    }

    #[tokio::test]
    async fn a_secret_may_be_kept_as_its_digest_and_several_while_it_rotates() {
        let hash: String = sha256(SECRET.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let zeros = "0".repeat(64);
        let json =
            format!(r#"{{"clients":[{{"client_id":"a","secret_sha256":["{zeros}","{hash}"],"may":["refresh"]}}]}}"#);
        let clients = clients(&json).await.unwrap();
        let form = Form::parse(format!("client_id=a&client_secret={SECRET}").as_bytes()).unwrap();
        let client = clients.authenticate(&HeaderMap::new(), &form).unwrap();
        assert!(client.must(May::Refresh).is_ok() && client.must(May::Revoke).is_err());
        assert!(clients.may_refresh("a") && !clients.may_refresh("b"));
    }
}
