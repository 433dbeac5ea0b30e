//! What `POST /v1/sessions` asks for, parsed once into a session that can be made.
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire::Cidr;

use super::options::SessionOptions;
use crate::Options;
use crate::http::admin::problem::Problem;
use crate::model::session::{Format, MAX_SCOPES};

/// The claims that one may give, as JSON.
const MAX_CLAIMS_BYTES: usize = 8 * 1024;
const MAX_TEXT: usize = 2048;
const MAX_REASON: usize = 512;
const MAX_AUDIENCES: usize = 16;
const MAX_SCOPE_BYTES: usize = 4096;
const MAX_ADDRESSES: usize = 64;

/// The claim with the addresses that a session may be used from; for the filter's `binding.address`.
pub const ADDRESSES: &str = "client_addresses";
/// The claim with the base64url SHA-256 of the User-Agent; for the filter's `binding.user_agent`.
pub const USER_AGENT: &str = "user_agent_sha256";
/// Set by us, or said of a token by introspection (RFC 7662 section 2.2).
const OURS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sid",
    "auth_time",
    "scope",
    "scp",
    "client_id",
    "azp",
    "cnf",
    "active",
    "token_type",
    "username",
    "events",
    ADDRESSES,
    USER_AGENT,
];

/// A session to make. Durations are a whole number and a unit: `30s`, `15m`, `8h`, `7d`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Whose it is: the `sub` of its tokens.
    pub subject: String,
    /// The client that it was made for, and the only one that may refresh it.
    pub client_id: Option<String>,
    /// Default: the service's `--session-audience`.
    pub audience: Option<OneOrMany>,
    /// Words separated by spaces (RFC 6749 section 3.3).
    pub scope: Option<String>,
    /// Further claims of its tokens. None that the service sets itself.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// From `auth_time` or now to its end. Default: the service's `--session-lifetime`.
    pub lifetime: Option<String>,
    /// Ends it when it is neither introspected nor refreshed for so long. Default: it may lie unused.
    pub idle_timeout: Option<String>,
    /// Of each access token. Default: `--access-lifetime` with a refresh token, else as long as the session; a JWT at most
    /// `idle_timeout`.
    pub access_lifetime: Option<String>,
    pub format: Option<Format>,
    /// Give a refresh token, too; needs `client_id`.
    #[serde(default)]
    pub refresh: bool,
    /// When the user logged in, in Unix seconds. Default: now.
    pub auth_time: Option<u64>,
    #[serde(default)]
    pub binding: CreateBinding,
    /// For whoever reads the audit log.
    pub reason: Option<String>,
}

/// What the session may be used from. The filter checks it where its rules' `binding` names the claims.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// Addresses or CIDR blocks; the claim `client_addresses`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The client's User-Agent, as it sends it; its SHA-256 becomes the claim `user_agent_sha256`.
    pub user_agent: Option<String>,
    /// base64url SHA-256 of the client certificate's DER; the claim `cnf.x5t#S256` (RFC 8705 section 3.1).
    pub certificate: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What was asked, checked against what the service allows.
pub struct NewSession {
    pub sub: String,
    pub client_id: Option<String>,
    pub aud: Vec<String>,
    pub scopes: Vec<String>,
    pub claims: Map<String, Value>,
    pub binding: Map<String, Value>,
    pub format: Format,
    pub refresh: bool,
    pub auth_time: u64,
    /// Unix seconds.
    pub ends: u64,
    pub idle: Option<Duration>,
    pub access_lifetime: Duration,
    pub reason: Option<String>,
}

/// A JSON body, whose first wrong field is named.
pub fn read_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    let reader = &mut serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut *reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A member that is missing, unknown or twice belongs to the object round it: its name is in the message alone.
        let named = inner.to_string().split('`').nth(1).map(str::to_owned).filter(|_| !inner.is_syntax());
        match (path.as_str(), named) {
            _ if inner.is_syntax() || inner.is_eof() => {
                Problem::body(&format!("the body must be one JSON object: {inner}"))
            }
            (".", Some(field)) => Problem::field(&field, &format!("is wrong: {inner}")),
            (".", None) => Problem::body(&format!("the body must be one JSON object: {inner}")),
            (path, _) => Problem::field(path, &format!("is wrong: {inner}")),
        }
    })?;
    reader.end().map_err(|error| Problem::body(&format!("the body must be one JSON object: {error}")))?;
    Ok(value)
}

impl NewSession {
    /// # Errors
    /// The first field that is wrong.
    pub fn read(body: &[u8], now: u64, options: &Options, sessions: &SessionOptions) -> Result<Self, Problem> {
        let ask: CreateSession = read_json(body)?;
        let sub = text("subject", ask.subject)?;
        let client_id = ask.client_id.map(|id| text("client_id", id)).transpose()?;
        if ask.refresh && client_id.is_none() {
            return Err(Problem::field("client_id", "is missing: a refresh token belongs to a client"));
        }
        let aud = match ask.audience {
            None => sessions.audience.clone(),
            Some(OneOrMany::One(one)) => vec![one],
            Some(OneOrMany::Many(many)) => many,
        };
        if aud.is_empty() || aud.len() > MAX_AUDIENCES {
            return Err(Problem::field("audience", &format!("must be 1 to {MAX_AUDIENCES} audiences")));
        }
        let aud = aud.into_iter().map(|one| text("audience", one)).collect::<Result<_, _>>()?;
        let scopes = scopes(ask.scope.as_deref().unwrap_or_default())?;
        if let Some(name) = ask.claims.keys().find(|name| OURS.contains(&name.as_str())) {
            return Err(Problem::field("claims", &format!("has `{name}`, which the service sets itself")));
        }
        if serde_json::to_string(&ask.claims).map_or(usize::MAX, |claims| claims.len()) > MAX_CLAIMS_BYTES {
            return Err(Problem::field("claims", &format!("must have at most {MAX_CLAIMS_BYTES} bytes as JSON")));
        }
        let reason = match ask.reason {
            Some(reason) if reason.len() > MAX_REASON => {
                return Err(Problem::field("reason", &format!("must have at most {MAX_REASON} bytes")));
            }
            reason => reason,
        };
        let auth_time = ask.auth_time.unwrap_or(now);
        if auth_time > now {
            return Err(Problem::field("auth_time", "must not be in the future"));
        }
        let lifetime = duration("lifetime", ask.lifetime, sessions.lifetime)?;
        // Longer, and the filter refuses its tokens (JWT_TOO_LONG_LIVED), and a revocation is forgotten before them.
        if lifetime > options.max_lifetime {
            let most = options.max_lifetime.as_secs();
            return Err(Problem::field("lifetime", &format!("must be at most {most}s, the service's --max-lifetime")));
        }
        let ends = auth_time.saturating_add(lifetime.as_secs());
        if ends <= now {
            return Err(Problem::field("auth_time", "and `lifetime` make a session that is over already"));
        }
        let idle = ask.idle_timeout.map(|idle| duration("idle_timeout", Some(idle), Duration::ZERO)).transpose()?;
        let format = ask.format.unwrap_or(Format::Opaque);
        // A filter takes a JWT without asking whether its session lies unused, and what is gone from Redis cannot be found to
        // be ended: so no JWT outlives that.
        let most = idle.filter(|_| format == Format::Jwt).unwrap_or(Duration::MAX);
        let access_lifetime = match (ask.access_lifetime, ask.refresh) {
            (None, false) => lifetime.min(most),
            (None, true) => sessions.access_lifetime.min(most),
            (asked, _) => duration("access_lifetime", asked, sessions.access_lifetime)?,
        };
        if access_lifetime > most {
            return Err(Problem::field("access_lifetime", "must be at most `idle_timeout`, where `format` is `jwt`"));
        }
        Ok(Self {
            sub,
            client_id,
            aud,
            scopes,
            claims: ask.claims,
            binding: binding(ask.binding)?,
            format,
            refresh: ask.refresh,
            auth_time,
            ends,
            idle,
            access_lifetime,
            reason,
        })
    }
}

fn binding(ask: CreateBinding) -> Result<Map<String, Value>, Problem> {
    let mut claims = Map::new();
    if !ask.addresses.is_empty() {
        if ask.addresses.len() > MAX_ADDRESSES {
            return Err(Problem::field("binding.addresses", &format!("must be at most {MAX_ADDRESSES}")));
        }
        if let Some(bad) = ask.addresses.iter().find(|block| Cidr::parse(block).is_none()) {
            let what = format!("has `{bad}`, which is no address or CIDR block without bits beyond its prefix");
            return Err(Problem::field("binding.addresses", &what));
        }
        claims.insert(ADDRESSES.to_owned(), ask.addresses.into());
    }
    if let Some(agent) = ask.user_agent {
        let hash = digest::digest(&digest::SHA256, agent.as_bytes());
        claims.insert(USER_AGENT.to_owned(), URL_SAFE_NO_PAD.encode(hash).into());
    }
    if let Some(thumbprint) = ask.certificate {
        if URL_SAFE_NO_PAD.decode(&thumbprint).map(|bytes| bytes.len()) != Ok(32) {
            return Err(Problem::field("binding.certificate", "must be a SHA-256 in base64url, 43 characters"));
        }
        claims.insert("cnf".to_owned(), serde_json::json!({ "x5t#S256": thumbprint }));
    }
    Ok(claims)
}

/// # Errors
/// The field `scope`, with what is wrong with it.
pub fn scopes(text: &str) -> Result<Vec<String>, Problem> {
    // RFC 6749 section 3.3: %x21 / %x23-5B / %x5D-7E
    let right = |c: u8| matches!(c, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let mut scopes: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !word.bytes().all(right) {
            return Err(Problem::field("scope", "must be words of printable ASCII without `\"` and `\\`"));
        }
        if !scopes.iter().any(|known| known == word) {
            scopes.push(word.to_owned());
        }
    }
    if scopes.len() > MAX_SCOPES || text.len() > MAX_SCOPE_BYTES {
        let what = format!("must have at most {MAX_SCOPES} words and {MAX_SCOPE_BYTES} bytes");
        return Err(Problem::field("scope", &what));
    }
    Ok(scopes)
}

fn text(field: &str, value: String) -> Result<String, Problem> {
    if value.is_empty() || value.len() > MAX_TEXT {
        return Err(Problem::field(field, &format!("must have 1 to {MAX_TEXT} bytes")));
    }
    Ok(value)
}

/// At least a second, and whole seconds.
fn duration(field: &str, asked: Option<String>, default: Duration) -> Result<Duration, Problem> {
    let Some(text) = asked else { return Ok(default) };
    let duration = wire::parse_duration(&text).map_err(|error| Problem::field(field, &format!("is wrong: {error}")))?;
    let right = duration >= Duration::from_secs(1) && duration.subsec_nanos() == 0;
    if !right || duration > crate::app::options::MAX_DURATION {
        return Err(Problem::field(field, "must be whole seconds, at least one, at most ten years"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::options::tests::options;
    use crate::domain::sessions::options::tests::session_options;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn read(body: Value) -> Result<NewSession, String> {
        let read = NewSession::read(body.to_string().as_bytes(), NOW, &options(), &session_options());
        read.map_err(|problem| serde_json::to_string(&problem).unwrap())
    }

    #[test]
    fn a_wrong_field_is_named() {
        let long = "x".repeat(9000);
        for (field, body) in [
            ("subject", json!({})),
            ("subject", json!({ "subject": "" })),
            ("subject", json!({ "subject": 5 })),
            ("colour", json!({ "subject": "a", "colour": "red" })),
            ("client_id", json!({ "subject": "a", "refresh": true })),
            ("audience", json!({ "subject": "a", "audience": [] })),
            ("scope", json!({ "subject": "a", "scope": "a\"b" })),
            ("scope", json!({ "subject": "a", "scope": (0..65).map(|n| n.to_string()).collect::<Vec<_>>().join(" ") })),
            ("claims", json!({ "subject": "a", "claims": { "sub": "mallory" } })),
            ("claims", json!({ "subject": "a", "claims": { "cnf": {} } })),
            ("claims", json!({ "subject": "a", "claims": { "x": long } })),
            ("claims", json!({ "subject": "a", "claims": [] })),
            ("lifetime", json!({ "subject": "a", "lifetime": "86401s" })),
            ("lifetime", json!({ "subject": "a", "lifetime": "1500ms" })),
            ("lifetime", json!({ "subject": "a", "lifetime": "0s" })),
            ("lifetime", json!({ "subject": "a", "lifetime": 5 })),
            ("idle_timeout", json!({ "subject": "a", "idle_timeout": "soon" })),
            ("format", json!({ "subject": "a", "format": "saml" })),
            ("auth_time", json!({ "subject": "a", "auth_time": NOW + 1 })),
            ("auth_time", json!({ "subject": "a", "auth_time": NOW - 3600, "lifetime": "1h" })),
            ("auth_time", json!({ "subject": "a", "auth_time": -1 })),
            ("binding.addresses", json!({ "subject": "a", "binding": { "addresses": ["10.0.0.1/8"] } })),
            ("binding.certificate", json!({ "subject": "a", "binding": { "certificate": "abc" } })),
            ("binding.colour", json!({ "subject": "a", "binding": { "colour": "red" } })),
            ("reason", json!({ "subject": "a", "reason": "x".repeat(513) })),
        ] {
            let problem = read(body.clone()).map(|_| ()).unwrap_err();
            assert!(problem.contains(&format!("\"field\":\"{field}")), "{body} gave {problem}");
        }
        for body in ["", "[]", "{", "null", "{} {}"] {
            let problem = NewSession::read(body.as_bytes(), NOW, &options(), &session_options()).map(|_| ());
            let problem = serde_json::to_string(&problem.unwrap_err()).unwrap();
            assert!(problem.contains("invalid_"), "{body} gave {problem}");
        }
        assert!(NewSession::read(br#"{"subject":"a","subject":"b"}"#, NOW, &options(), &session_options()).is_err());
    }

    #[test]
    fn defaults_are_those_of_the_service_and_the_end_counts_from_the_login() {
        let made = read(json!({ "subject": "a", "auth_time": NOW - 100 })).unwrap();
        assert_eq!((made.ends, made.auth_time), (NOW - 100 + 12 * 3600, NOW - 100));
        assert_eq!((made.access_lifetime.as_secs(), made.aud), (12 * 3600, vec!["api".to_owned()]));
        let refreshed = read(json!({ "subject": "a", "refresh": true, "client_id": "c" })).unwrap();
        assert_eq!(refreshed.access_lifetime.as_secs(), 300);
        assert_eq!(read(json!({ "subject": "a", "lifetime": "86400s" })).unwrap().ends, NOW + 86_400);
    }

    #[test]
    fn no_jwt_outlives_what_is_kept_of_an_idle_session() {
        let access = |more: Value| {
            let mut body = json!({ "subject": "a", "client_id": "c", "idle_timeout": "60s" });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(body).map(|made| made.access_lifetime.as_secs())
        };
        assert_eq!(access(json!({ "format": "jwt" })), Ok(60));
        assert_eq!(access(json!({ "format": "jwt", "refresh": true })), Ok(60));
        assert_eq!(access(json!({ "format": "jwt", "access_lifetime": "60s" })), Ok(60));
        let problem = access(json!({ "format": "jwt", "access_lifetime": "61s" })).unwrap_err();
        assert!(problem.contains("\"field\":\"access_lifetime"), "{problem}");
        assert_eq!(access(json!({ "access_lifetime": "61s" })), Ok(61));
    }

    #[test]
    fn binding_becomes_the_claims_that_the_filter_reads() {
        let thumbprint = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        let binding = json!({ "addresses": ["10.0.0.0/8", "::1"], "user_agent": "", "certificate": thumbprint });
        let made = read(json!({ "subject": "a", "binding": binding })).unwrap();
        let expected = json!({
            "client_addresses": ["10.0.0.0/8", "::1"],
            "user_agent_sha256": thumbprint,
            "cnf": { "x5t#S256": thumbprint },
        });
        assert_eq!(Value::Object(made.binding), expected);
    }
}
