//! What is kept of a session: its data, encrypted, and beside it in the clear what the scripts must compare.
//!
//! ```text
//! portcullis:{<bucket>}:s:<name>   a hash, with an expiry: the session's end, or sooner when it lies unused
//!   d  the data, sealed     a  access records, newest first     r, p  MAC of the current and the previous refresh token
//!   t  when it was replaced     u  when last used     e  the end     (Unix milliseconds of Redis's clock)
//!   i  milliseconds that it may lie unused, or 0     x  why it was ended     n  how often it was refreshed
//! portcullis:{<bucket>}:u:<name>   a sorted set of the subject's sids by their end
//! ```
//! All of a session lies under one name, so that every change is one command in one bucket.
use jose::base64url;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::model::session_keys::TokenMac;

/// The valid access tokens of one session at a time: the newest, and those left by refreshes.
pub const MAX_ACCESS_TOKENS: usize = 4;
pub const RECORD_BYTES: usize = 48;
/// In the place of expiry and scopes: the record is about the key of the next one. No token has it, since none expires in 1970.
const BINDING: [u8; 16] = *b"\0\0\0\0\0\0\0\0dpop jkt";
/// A scope is a bit in an access record.
pub const MAX_SCOPES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A random token that only this service can read.
    Opaque,
    /// A signed JWT (RFC 9068).
    Jwt,
}

/// The data of a session. Times are Unix seconds.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub sid: String,
    pub iss: String,
    pub sub: String,
    pub client_id: Option<String>,
    pub aud: Vec<String>,
    pub scopes: Vec<String>,
    /// Further claims, without those that we set.
    pub claims: Map<String, Value>,
    /// RFC 7800, and the claims that the filter's binding reads.
    pub binding: Map<String, Value>,
    pub format: Format,
    pub created: u64,
    pub auth_time: u64,
    pub ends: u64,
    pub idle: Option<u64>,
    pub access_lifetime: u64,
    pub refresh: bool,
    pub by: String,
    pub reason: Option<String>,
}

/// The claims that name a session's subject and what it may do, as its JWTs and introspection have them.
#[derive(Serialize)]
pub struct SessionClaims {
    pub iss: String,
    pub sub: String,
    pub sid: String,
    /// Unix seconds.
    pub auth_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The session's further claims, and those of its binding.
    #[serde(flatten)]
    pub further: Map<String, Value>,
}

/// One audience is written as a string (RFC 7519 section 4.1.3).
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

/// An access token, its expiry, and its part of the session's scopes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AccessRecord {
    pub mac: TokenMac,
    pub exp: u64,
    pub scopes: u64,
    /// The key that it is bound to, apart from its session: in a record of its own, before the token's.
    pub jkt: Option<[u8; 32]>,
}

impl Data {
    /// The scopes whose bits are set.
    pub fn scopes_of(&self, mask: u64) -> Vec<&str> {
        let chosen =
            self.scopes.iter().enumerate().filter(|(bit, _)| mask.checked_shr(*bit as u32).unwrap_or(0) & 1 == 1);
        chosen.map(|(_, scope)| scope.as_str()).collect()
    }

    /// The bits of `wanted`. `None` if one of them is not a scope of the session.
    pub fn mask_of<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Option<u64> {
        let mut mask = 0;
        for scope in wanted {
            let bit = self.scopes.iter().position(|ours| ours == scope)?;
            mask |= 1_u64.checked_shl(u32::try_from(bit).ok()?)?;
        }
        Some(mask)
    }

    /// The thumbprint of the key that the session is bound to (RFC 9449 section 6).
    pub fn jkt(&self) -> Option<&str> {
        self.binding.get("cnf")?.get("jkt")?.as_str()
    }

    /// `mask`: the scopes that the token has. `jkt`: the key that it is bound to, if not by its session.
    pub fn to_claims(&self, mask: u64, jkt: Option<[u8; 32]>) -> SessionClaims {
        let scopes = self.scopes_of(mask);
        let mut further = self.claims.clone();
        further.extend(self.binding.clone());
        if let Some(jkt) = jkt {
            let cnf = further.entry("cnf").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(cnf) = cnf {
                cnf.insert("jkt".to_owned(), base64url::encode(jkt).into());
            }
        }
        SessionClaims {
            iss: self.iss.clone(),
            sub: self.sub.clone(),
            sid: self.sid.clone(),
            auth_time: self.auth_time,
            client_id: self.client_id.clone(),
            aud: match self.aud.as_slice() {
                [] => None,
                [one] => Some(Audience::One(one.clone())),
                several => Some(Audience::Many(several.to_vec())),
            },
            scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
            further,
        }
    }
}

impl SessionClaims {
    /// `DPoP` for a token that is bound to a key (RFC 9449 sections 5 and 6.2).
    pub fn token_type(&self) -> &'static str {
        let is_bound = self.further.get("cnf").is_some_and(|cnf| cnf.get("jkt").is_some());
        if is_bound { "DPoP" } else { "Bearer" }
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data").field("sid", &self.sid).finish_non_exhaustive()
    }
}

impl AccessRecord {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(jkt) = self.jkt {
            bytes.extend_from_slice(&jkt);
            bytes.extend_from_slice(&BINDING);
        }
        bytes.extend_from_slice(&self.mac.0);
        bytes.extend_from_slice(&self.exp.to_be_bytes());
        bytes.extend_from_slice(&self.scopes.to_be_bytes());
        bytes
    }

    /// The record of the token with this MAC. Compared in constant time.
    pub fn find(records: &[u8], mac: TokenMac) -> Option<Self> {
        let mut bound = None;
        records.chunks_exact(RECORD_BYTES).find_map(|record| {
            let (kept, rest) = record.split_first_chunk::<32>()?;
            // The oldest records are dropped from the end: a token never without its binding.
            let jkt = bound.take();
            if rest == BINDING {
                bound = Some(*kept);
                return None;
            }
            aws_lc_rs::constant_time::verify_slices_are_equal(kept, &mac.0).ok()?;
            let (exp, scopes) = rest.split_first_chunk::<8>()?;
            let scopes = u64::from_be_bytes(*scopes.first_chunk()?);
            Some(Self { mac, exp: u64::from_be_bytes(*exp), scopes, jkt })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(byte: u8) -> AccessRecord {
        AccessRecord { mac: TokenMac([byte; 32]), exp: u64::from(byte), scopes: u64::MAX, jkt: None }
    }

    #[test]
    fn a_record_is_found_among_others_and_no_other_is() {
        let records = [record(1).to_bytes(), record(2).to_bytes()].concat();
        assert_eq!(records.len(), 2 * RECORD_BYTES);
        assert!(AccessRecord::find(&records, TokenMac([2; 32])) == Some(record(2)));
        assert!(AccessRecord::find(&records, TokenMac([3; 32])).is_none());
        assert!(AccessRecord::find(&records[..RECORD_BYTES - 1], TokenMac([1; 32])).is_none());
        assert!(AccessRecord::find(b"", TokenMac([1; 32])).is_none());
    }

    #[test]
    fn a_token_is_never_found_without_the_key_that_it_is_bound_to() {
        let bound = AccessRecord { jkt: Some([9; 32]), ..record(1) };
        let records = [record(2).to_bytes(), bound.to_bytes(), record(3).to_bytes()].concat();
        assert_eq!(records.len(), 4 * RECORD_BYTES);
        for (byte, jkt) in [(1, Some([9; 32])), (2, None), (3, None)] {
            assert_eq!(AccessRecord::find(&records, TokenMac([byte; 32])).map(|found| found.jkt), Some(jkt));
        }
        assert!(AccessRecord::find(&records[..2 * RECORD_BYTES], TokenMac([1; 32])).is_none(), "dropped with its key");
    }
}
