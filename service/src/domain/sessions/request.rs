//! The session that is asked for, judged against what the operator configured.
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire::Cidr;
use wire::sightings::Client;

use super::Config;
use crate::base::limits::{MAX_DURATION, MAX_REASON};
use crate::domain::hijack::Origin;
use crate::model::field_error::FieldError;
use crate::model::session::{Audience, Format, MAX_SCOPES};

/// The bound on the given claims, as JSON.
const MAX_CLAIMS_BYTES: usize = 8 * 1024;
const MAX_TEXT: usize = 2048;
const MAX_AUDIENCES: usize = 16;
const MAX_SCOPE_BYTES: usize = 4096;
const MAX_ADDRESSES: usize = 64;

/// The claim with the addresses that may use a session; for the filter's `binding.address`.
pub const ADDRESSES: &str = "client_addresses";
/// The claim with the base64url SHA-256 of the User-Agent; for the filter's `binding.user_agent`.
pub const USER_AGENT: &str = "user_agent_sha256";
/// The same by HMAC-SHA-256, with `--agent-secret-file`; for `binding.user_agent` with that secret.
pub const USER_AGENT_HMAC: &str = "user_agent_hmac";
/// Set by us, or by introspection (RFC 7662 section 2.2).
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
    "portcullis_keep_for",
    "azp",
    "cnf",
    "active",
    "token_type",
    "username",
    "events",
    ADDRESSES,
    USER_AGENT,
    USER_AGENT_HMAC,
];

/// A session to create. Durations are a whole number and a unit: `30s`, `15m`, `8h`, `7d`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// The user: the `sub` of its tokens.
    pub subject: String,
    /// The client that it is for, and the only one that may refresh it.
    pub client_id: Option<String>,
    /// Default: the service's `--session-audience`.
    pub audience: Option<Audience>,
    /// Words separated by spaces (RFC 6749 section 3.3).
    pub scope: Option<String>,
    /// Further claims of its tokens, except those that the service sets itself.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// From `auth_time` or now to its end. Default: the service's `--session-lifetime`.
    pub lifetime: Option<String>,
    /// Ends it if it is neither introspected nor refreshed for this long. Default: no idle timeout.
    pub idle_timeout: Option<String>,
    /// Of each access token. Default: `--access-lifetime` with a refresh token, otherwise that of the session; a JWT at
    /// most `idle_timeout`.
    pub access_lifetime: Option<String>,
    pub format: Option<Format>,
    /// Also issue a refresh token; needs `client_id`.
    #[serde(default)]
    pub refresh: bool,
    /// When the user logged in, in Unix seconds. Default: now.
    pub auth_time: Option<u64>,
    #[serde(default)]
    pub binding: CreateBinding,
    /// The client that logged in. Hijack detection (`--sightings-file`) compares the first use of the session with it.
    #[serde(default)]
    pub made_from: MadeFrom,
    /// For the audit log.
    pub reason: Option<String>,
}

/// The clients that may use the session. The filter checks it where its rules' `binding` names the claims.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// Addresses or CIDR blocks; the claim `client_addresses`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The client's address. Its network (24 bits of IPv4, 56 of IPv6) is added to the claim `client_addresses`.
    pub network: Option<String>,
    /// The client's User-Agent, as it sends it; its SHA-256 becomes the claim `user_agent_sha256`, or with
    /// `--agent-secret-file` its HMAC the claim `user_agent_hmac`.
    pub user_agent: Option<String>,
    /// base64url SHA-256 of the client certificate's DER; the claim `cnf.x5t#S256` (RFC 8705 section 3.1).
    pub certificate: Option<String>,
    /// The RFC 7638 thumbprint of a key of the client, SHA-256 in base64url; the claim `cnf.jkt` (RFC 9449 section 6). Its
    /// tokens count with proofs of the key alone.
    pub jkt: Option<String>,
}

/// From where a session was made.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct MadeFrom {
    /// The address of the user's client.
    pub address: Option<String>,
    /// Its User-Agent, as it sends it.
    pub user_agent: Option<String>,
}

/// What was asked for, with the defaults filled in.
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
    pub made_from: Origin,
    pub reason: Option<String>,
}

impl NewSession {
    pub fn is_bound_to_key(&self) -> bool {
        self.binding.get("cnf").is_some_and(|cnf| cnf.get("jkt").is_some())
    }

    /// # Errors
    /// The first field that is wrong.
    pub fn new(asked: CreateSession, now: u64, config: &Config) -> Result<Self, FieldError> {
        let sub = text("subject", asked.subject)?;
        let client_id = asked.client_id.map(|id| text("client_id", id)).transpose()?;
        if asked.refresh && client_id.is_none() {
            return Err(FieldError::new("client_id", "is missing: a refresh token belongs to a client"));
        }
        let aud = match asked.audience {
            None => config.audience.clone(),
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Many(many)) => many,
        };
        if aud.is_empty() || aud.len() > MAX_AUDIENCES {
            return Err(FieldError::new("audience", format!("must be 1 to {MAX_AUDIENCES} audiences")));
        }
        let aud = aud.into_iter().map(|one| text("audience", one)).collect::<Result<_, _>>()?;
        let scopes = scopes(asked.scope.as_deref().unwrap_or_default())?;
        if let Some(name) = asked.claims.keys().find(|name| OURS.contains(&name.as_str())) {
            return Err(FieldError::new("claims", format!("has `{name}`, which the service sets itself")));
        }
        if serde_json::to_string(&asked.claims).map_or(usize::MAX, |claims| claims.len()) > MAX_CLAIMS_BYTES {
            return Err(FieldError::new("claims", format!("must have at most {MAX_CLAIMS_BYTES} bytes as JSON")));
        }
        let reason = match asked.reason {
            Some(reason) if reason.len() > MAX_REASON => {
                return Err(FieldError::new("reason", format!("must have at most {MAX_REASON} bytes")));
            }
            reason => reason,
        };
        let auth_time = asked.auth_time.unwrap_or(now);
        if auth_time > now {
            return Err(FieldError::new("auth_time", "must not be in the future"));
        }
        let lifetime = duration("lifetime", asked.lifetime, config.lifetime)?;
        // With a longer one, the filter refuses its tokens (JWT_TOO_LONG_LIVED), and a revocation would expire before
        // them.
        if lifetime > config.max_lifetime {
            let most = config.max_lifetime.as_secs();
            return Err(FieldError::new("lifetime", format!("must be at most {most}s, the service's --max-lifetime")));
        }
        let ends = auth_time.saturating_add(lifetime.as_secs());
        if ends <= now {
            return Err(FieldError::new("auth_time", "and `lifetime` make a session that has already ended"));
        }
        let idle = asked.idle_timeout.map(|idle| duration("idle_timeout", Some(idle), Duration::ZERO)).transpose()?;
        let format = asked.format.unwrap_or(Format::Opaque);
        // A filter takes a JWT without asking whether its session is idle, and a session that is gone from the store cannot be
        // ended. So no JWT outlives the idle timeout.
        let most = idle.filter(|_| format == Format::Jwt).unwrap_or(Duration::MAX);
        let access_lifetime = match (asked.access_lifetime, asked.refresh) {
            (None, false) => lifetime.min(most),
            (None, true) => config.access_lifetime.min(most),
            (asked, _) => duration("access_lifetime", asked, config.access_lifetime)?,
        };
        if access_lifetime > most {
            return Err(FieldError::new("access_lifetime", "must be at most `idle_timeout` if `format` is `jwt`"));
        }
        Ok(Self {
            sub,
            client_id,
            aud,
            scopes,
            claims: asked.claims,
            binding: binding(asked.binding, config.agent_secret.as_ref())?,
            format,
            refresh: asked.refresh,
            auth_time,
            ends,
            idle,
            access_lifetime,
            made_from: Origin {
                address: asked
                    .made_from
                    .address
                    .map(|address| parse_address("made_from.address", &address))
                    .transpose()?,
                user_agent: asked.made_from.user_agent,
            },
            reason,
        })
    }
}

fn binding(asked: CreateBinding, agent_secret: Option<&hmac::Key>) -> Result<Map<String, Value>, FieldError> {
    let (mut claims, mut addresses) = (Map::new(), asked.addresses);
    if let Some(address) = asked.network {
        let network = Client::network_of(parse_address("binding.network", &address)?);
        addresses.push(format!("{}/{}", network.network(), network.prefix()));
    }
    if !addresses.is_empty() {
        if addresses.len() > MAX_ADDRESSES {
            return Err(FieldError::new("binding.addresses", format!("must be at most {MAX_ADDRESSES}")));
        }
        if let Some(bad) = addresses.iter().find(|block| Cidr::parse(block).is_none()) {
            let what = format!("has `{bad}`, which is not an address or a CIDR block without bits beyond its prefix");
            return Err(FieldError::new("binding.addresses", &what));
        }
        claims.insert(ADDRESSES.to_owned(), addresses.into());
    }
    if let Some(agent) = asked.user_agent {
        let (claim, print) = match agent_secret {
            None => (USER_AGENT, URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, agent.as_bytes()))),
            Some(key) => (USER_AGENT_HMAC, URL_SAFE_NO_PAD.encode(hmac::sign(key, agent.as_bytes()))),
        };
        claims.insert(claim.to_owned(), print.into());
    }
    let mut confirmed = Map::new();
    for (field, member, digest) in [("certificate", "x5t#S256", asked.certificate), ("jkt", "jkt", asked.jkt)] {
        let Some(digest) = digest else { continue };
        if URL_SAFE_NO_PAD.decode(&digest).map(|bytes| bytes.len()) != Ok(32) {
            let field = format!("binding.{field}");
            return Err(FieldError::new(&field, "must be a SHA-256 in base64url, 43 characters"));
        }
        confirmed.insert(member.to_owned(), digest.into());
    }
    if !confirmed.is_empty() {
        claims.insert("cnf".to_owned(), confirmed.into());
    }
    Ok(claims)
}

fn parse_address(field: &str, text: &str) -> Result<IpAddr, FieldError> {
    let address: Result<IpAddr, _> = text.parse();
    address.map(|address| address.to_canonical()).map_err(|_| FieldError::new(field, "must be an address"))
}

/// # Errors
/// The field `scope`, with its error.
pub fn scopes(text: &str) -> Result<Vec<String>, FieldError> {
    // RFC 6749 section 3.3: %x21 / %x23-5B / %x5D-7E
    let right = |c: u8| matches!(c, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let mut scopes: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !word.bytes().all(right) {
            return Err(FieldError::new("scope", "must be words of printable ASCII without `\"` and `\\`"));
        }
        if !scopes.iter().any(|known| known == word) {
            scopes.push(word.to_owned());
        }
    }
    if scopes.len() > MAX_SCOPES || text.len() > MAX_SCOPE_BYTES {
        let what = format!("must have at most {MAX_SCOPES} words and {MAX_SCOPE_BYTES} bytes");
        return Err(FieldError::new("scope", &what));
    }
    Ok(scopes)
}

fn text(field: &str, value: String) -> Result<String, FieldError> {
    if value.is_empty() || value.len() > MAX_TEXT {
        return Err(FieldError::new(field, format!("must have 1 to {MAX_TEXT} bytes")));
    }
    Ok(value)
}

/// Whole seconds, at least one.
fn duration(field: &str, asked: Option<String>, default: Duration) -> Result<Duration, FieldError> {
    let Some(text) = asked else { return Ok(default) };
    let duration = wire::parse_duration(&text).map_err(|error| FieldError::new(field, format!("is wrong: {error}")))?;
    let is_whole = duration >= Duration::from_secs(1) && duration.subsec_nanos() == 0;
    if !is_whole || duration > MAX_DURATION {
        return Err(FieldError::new(field, "must be whole seconds, at least one, at most ten years"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;
