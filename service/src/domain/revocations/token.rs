//! The subject that a token names. The token is parsed and not verified: a forged one revokes what it names, and only
//! operators may send one. It gets the key that filters ask about, so a token that they would refuse is refused.
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess};
use serde_json::Value;
use wire::{Kind, TENANT_PLACEHOLDER, TOKEN_ID_CLAIMS, token_id_from_signing_input};

use super::Policy;
use super::subject::{Id, Subject, pattern_error};
use crate::model::field_error::FieldError;

impl Subject {
    /// # Errors
    /// `token`, if it is no JWT or its claims cannot name it.
    pub fn of_token(token: &str, policy: &Policy) -> Result<Self, FieldError> {
        let wrong = |what: &str| FieldError::new("token", what);
        let token = token.trim_ascii();
        let (signing_input, _) = token.rsplit_once('.').ok_or_else(|| wrong("must be a signed JWT in compact form"))?;
        let (header, payload) =
            signing_input.split_once('.').ok_or_else(|| wrong("must be a signed JWT in compact form"))?;
        if header.is_empty() || payload.contains('.') {
            return Err(wrong("must be a signed JWT in compact form"));
        }
        // Some issuers pad (the filter's `padded`), and the signing input includes the padding.
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| wrong("has a payload that is not base64url"))?;
        let claims: Claims =
            serde_json::from_slice(&payload).map_err(|_| wrong("has a payload that is not a JSON object"))?;
        let issuer = match claims.one("iss") {
            Ok(Some(Value::String(issuer))) => issuer,
            _ => return Err(wrong("must have the claim iss once, as a string")),
        };
        if issuer.contains(TENANT_PLACEHOLDER) {
            return Err(pattern_error());
        }
        let own = policy.token_claims_of(issuer);
        let default = TOKEN_ID_CLAIMS.map(str::to_owned);
        for name in own.unwrap_or(&default) {
            match claims.one(name) {
                Ok(Some(Value::String(id))) => {
                    return Ok(Self { kind: Kind::Token, issuer: issuer.clone(), id: Id::Text(id.clone()) });
                }
                // Of the default claims, only `jti` means the same to every issuer.
                Ok(Some(_)) if own.is_none() && name != "jti" => {}
                Ok(None) => {}
                Ok(Some(_)) => return Err(wrong(&format!("must have the claim {name}, if at all, as a string"))),
                Err(Twice) => return Err(wrong(&format!("has the claim {name} twice"))),
            }
        }
        let id = Id::SigningInput(token_id_from_signing_input(signing_input.as_bytes()));
        Ok(Self { kind: Kind::Token, issuer: issuer.clone(), id })
    }
}

/// The claims as they were sent, twice if they were sent twice.
struct Claims(Vec<(String, Value)>);

struct Twice;

impl Claims {
    /// Null is absent. Twice is an error, also with null.
    fn one(&self, name: &str) -> Result<Option<&Value>, Twice> {
        let mut found = self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (value, None) => Ok(value.filter(|value| !value.is_null())),
            (_, Some(_)) => Err(Twice),
        }
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Vec::new();
                while let Some(claim) = map.next_entry()? {
                    claims.push(claim);
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
