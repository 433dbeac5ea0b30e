//! One issuer's introspection server (RFC 7662): the tokens that it is asked about, the request, and the reply.
//! `introspections` tracks the waiting requests; `decide` judges an active token's claims.
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::json::{Json, JsonError};

use crate::config::{
    self, ClientAuth, ConfigDuration, Environment, IntrospectedTokens, Invalid, check_range, secret_from,
};
use crate::reject::{Cause, Rejection};
use crate::request::authority::authority_or;
use crate::time::Monotonic;

mod format;

pub use format::Format;

/// The largest reply that is read, in bytes.
pub const MAX_REPLY_BYTES: usize = 32 * 1024;
/// How long an answer counts at most, unless the feed of revocations says more.
pub(crate) const LONGEST_FRESHNESS: Duration = Duration::from_secs(5);
/// The longest client id or secret, in bytes.
const MAX_CREDENTIAL_BYTES: usize = 1024;

/// How one issuer's server is asked.
pub struct Introspection {
    pub cluster: String,
    pub timeout: Duration,
    freshness: Duration,
    /// How long a positive answer about an opaque token counts while the feed says that the token was not revoked.
    pub(crate) kept_for: Option<Duration>,
    format: Option<Format>,
    asks_about_jwts: bool,
    authority: String,
    path: String,
    credentials: Credentials,
}

/// The client secret, in the form in which it is sent. Never printed.
enum Credentials {
    None,
    /// The value of the Authorization header.
    Basic(String),
    /// The text after the token in the body.
    Post(String),
}

/// A request, ready to send. Contains the token, and possibly the client's secret: it has no `Debug`.
pub struct Question {
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// A complete reply, as the proxy received it.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub status: u16,
    pub content_type: Option<&'a [u8]>,
    /// At least one byte more than [`MAX_REPLY_BYTES`] if there is more.
    pub body: &'a [u8],
}

/// Why a reply, or its absence, says nothing about the token. An error of the server, never of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The host did not send the request.
    NotSent,
    /// Timeout, refused connection, or an incomplete answer.
    NoAnswer,
    /// The server does not accept this filter's own credentials (401 or 403).
    ClientRefused,
    /// A 5xx of the server's own.
    ServerError,
    /// Not an introspection response.
    NotUnderstood,
    /// Too many requests are in flight or waiting.
    Overload,
}

impl Introspection {
    pub(crate) fn compile(
        document: &config::Introspection,
        at: &str,
        limits: &config::Limits,
        environment: Environment<'_>,
    ) -> Result<Self, Invalid> {
        let at = |field: &str| format!("{at}.{field}");
        if document.cluster.is_empty() {
            return Err(Invalid::new(at("cluster"), "must not be empty"));
        }
        let authority = authority_or(document.authority.as_deref(), &document.cluster, &at("authority"))?;
        // Visible ASCII, since it becomes a header's value. A query is for the server to interpret; a fragment is never
        // sent.
        let plain = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'#';
        if !document.path.starts_with('/') || !document.path.bytes().all(plain) {
            return Err(Invalid::new(at("path"), "must begin with / and be visible ASCII without #"));
        }
        let millis = ConfigDuration::from_millis;
        check_range(document.timeout, millis(10), ConfigDuration::from_secs(5), &at("timeout"))?;
        // `policy` checks what more than the longest freshness needs.
        check_range(document.freshness, ConfigDuration::from_secs(1), ConfigDuration::from_secs(60), &at("freshness"))?;
        // An answer that takes longer than it counts could never be used.
        if document.timeout > document.freshness {
            return Err(Invalid::new(at("timeout"), "must not be longer than `freshness`"));
        }
        Ok(Self {
            cluster: document.cluster.clone(),
            timeout: document.timeout.0,
            freshness: document.freshness.0.min(LONGEST_FRESHNESS),
            kept_for: Some(document.freshness.0).filter(|it| *it > LONGEST_FRESHNESS),
            format: compile_format(document, &at, limits)?,
            asks_about_jwts: document.of != IntrospectedTokens::Opaque,
            authority,
            path: document.path.clone(),
            credentials: Credentials::compile(document, &at, environment)?,
        })
    }

    /// Of its opaque tokens, if it is asked about any.
    pub fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// Is this token one of the issuer's opaque tokens, by its format?
    pub fn is_opaque_of(&self, token: &[u8]) -> bool {
        self.format.as_ref().is_some_and(|format| format.fits(token))
    }

    /// Is it asked about its issuer's verified JWTs?
    pub fn asks_about_jwts(&self) -> bool {
        self.asks_about_jwts
    }

    /// Does an answer still count, if its request was sent then? A time in the future is not from this clock.
    pub fn is_fresh(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.freshness
    }

    /// RFC 7662 section 2.1.
    pub fn question(&self, token: &[u8]) -> Question {
        let mut body = "token=".to_owned();
        form_encode(token, &mut body);
        body.push_str("&token_type_hint=access_token");
        let mut headers = vec![
            (":method", "POST".to_owned()),
            (":path", self.path.clone()),
            (":authority", self.authority.clone()),
            (":scheme", "http".to_owned()),
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("accept", "application/json".to_owned()),
        ];
        match &self.credentials {
            Credentials::None => {}
            Credentials::Basic(value) => headers.push(("authorization", value.clone())),
            Credentials::Post(parameters) => body.push_str(parameters),
        }
        Question { headers, body }
    }
}

fn compile_format(
    document: &config::Introspection,
    at: &impl Fn(&str) -> String,
    limits: &config::Limits,
) -> Result<Option<Format>, Invalid> {
    match (&document.format, document.of) {
        (None, IntrospectedTokens::Jwt) => Ok(None),
        (None, _) => Err(Invalid::new(at("format"), "is needed, unless `of` is `jwt`")),
        (Some(_), IntrospectedTokens::Jwt) => Err(Invalid::new(at("format"), "has no effect with `of: jwt`")),
        (Some(format), _) => Format::compile(format, limits).map(Some).map_err(|invalid| invalid.within(at("format"))),
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("cluster", &self.cluster)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    fn compile(
        document: &config::Introspection,
        at: &impl Fn(&str) -> String,
        environment: Environment<'_>,
    ) -> Result<Self, Invalid> {
        let given =
            [("client_id", document.client_id.is_some()), ("client_secret_env", document.client_secret_env.is_some())];
        if document.client_auth == ClientAuth::None {
            return match given.iter().find(|(_, is_given)| *is_given) {
                Some((field, _)) => Err(Invalid::new(at(field), "has no effect with `client_auth: none`")),
                None => Ok(Self::None),
            };
        }
        let missing = |field: &str| Invalid::new(at(field), "is needed, unless `client_auth` is `none`");
        let id = document.client_id.as_deref().filter(|id| !id.is_empty()).ok_or_else(|| missing("client_id"))?;
        let variable = document.client_secret_env.as_deref().ok_or_else(|| missing("client_secret_env"))?;
        let field = at("client_secret_env");
        let secret = secret_from(environment, variable, config::SecretEncoding::Raw, &field)?;
        // The content of a file often ends in a line feed, which no client secret has (RFC 6749 appendix A.2).
        let secret = secret.trim_ascii();
        if secret.is_empty() || !secret.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return Err(Invalid::new(field, format!("`{variable}` is empty or not printable ASCII")));
        }
        for (field, length) in [("client_id", id.len()), ("client_secret_env", secret.len())] {
            if length > MAX_CREDENTIAL_BYTES {
                return Err(Invalid::new(at(field), format!("is longer than {MAX_CREDENTIAL_BYTES} bytes")));
            }
        }
        let (mut encoded_id, mut encoded_secret) = (String::new(), String::new());
        form_encode(id.as_bytes(), &mut encoded_id);
        form_encode(secret, &mut encoded_secret);
        Ok(match document.client_auth {
            // RFC 6749 section 2.3.1: each is form-encoded, so that a colon in the id cannot shift the start of the
            // secret.
            ClientAuth::Basic => {
                Self::Basic(format!("Basic {}", STANDARD.encode(format!("{encoded_id}:{encoded_secret}"))))
            }
            ClientAuth::Post => Self::Post(format!("&client_id={encoded_id}&client_secret={encoded_secret}")),
            ClientAuth::None => Self::None,
        })
    }
}

impl<'a> Reply<'a> {
    /// The complete response object, if the token is active.
    ///
    /// # Errors
    /// `Ok(Err(…))` is a "no" of the server, `Err` is no answer at all.
    pub fn read(&self) -> Result<Result<Json<'a>, Rejection>, Unanswered> {
        let not_understood = |cause| Err(Unanswered { failure: Failure::NotUnderstood, cause });
        match self.status {
            200 => {}
            401 | 403 => return Err(Failure::ClientRefused.into()),
            // Also Envoy's own answer for a server that is down or too slow.
            502..=504 => return Err(Failure::NoAnswer.into()),
            500..=599 => return Err(Failure::ServerError.into()),
            _ => return not_understood(Cause::IntrospectionStatus),
        }
        if !self.content_type.is_some_and(is_json) {
            return not_understood(Cause::IntrospectionNotJsonType);
        }
        if self.body.len() > MAX_REPLY_BYTES {
            return not_understood(Cause::IntrospectionTooLong);
        }
        let response = match Json::parse(self.body) {
            Ok(response) => response,
            Err(error) => {
                return not_understood(match error {
                    JsonError::Syntax => Cause::IntrospectionNotJson,
                    JsonError::Duplicate => Cause::IntrospectionDuplicate,
                    JsonError::TooDeep => Cause::IntrospectionTooDeep,
                    JsonError::TooManyMembers => Cause::IntrospectionTooManyMembers,
                });
            }
        };
        let Json::Object(members) = &response else {
            return not_understood(Cause::IntrospectionNotObject);
        };
        match members.get("active") {
            Some(Json::Bool(true)) => Ok(Ok(response)),
            Some(Json::Bool(false)) => Ok(Err(Rejection::new(Cause::NotActive))),
            // "true" and 1 are not accepted (RFC 7662 section 2.2: a boolean).
            Some(_) | None => not_understood(Cause::IntrospectionNoActive),
        }
    }
}

/// A failure, and its description for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    pub failure: Failure,
    pub cause: Cause,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        let cause = match failure {
            Failure::NotSent => Cause::IntrospectionNotSent,
            Failure::NoAnswer => Cause::IntrospectionUnanswered,
            Failure::ClientRefused => Cause::IntrospectionClientRefused,
            Failure::ServerError => Cause::IntrospectionServerError,
            Failure::NotUnderstood => Cause::IntrospectionNotUnderstood,
            Failure::Overload => Cause::IntrospectionsFull,
        };
        Self { failure, cause }
    }
}

impl From<Unanswered> for Rejection {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.cause.into()
    }
}

impl Failure {
    pub const ALL: [Failure; 6] = [
        Failure::NotSent,
        Failure::NoAnswer,
        Failure::ClientRefused,
        Failure::ServerError,
        Failure::NotUnderstood,
        Failure::Overload,
    ];

    /// The metric's word.
    pub fn name(self) -> &'static str {
        match self {
            Failure::NotSent => "not_sent",
            Failure::NoAnswer => "no_answer",
            Failure::ClientRefused => "client_refused",
            Failure::ServerError => "server_error",
            Failure::NotUnderstood => "not_understood",
            Failure::Overload => "overload",
        }
    }
}

/// `application/json`, with parameters or without (RFC 7662 section 2.2).
fn is_json(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// `application/x-www-form-urlencoded`: every character that is not unreserved is escaped, so that no token can add a
/// parameter.
fn form_encode(bytes: &[u8], out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(*byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
