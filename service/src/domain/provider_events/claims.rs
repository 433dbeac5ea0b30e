//! The claims of a logout token or a security event: strict parsing, and the checks that both have in common.
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::error::RejectReason;

/// The longest id of a session or user, in bytes, as in the admin API.
pub const MAX_ID: usize = 2048;
/// Later times are invalid, and not exact in a double.
const MAX_TIME: f64 = 9_007_199_254_740_992.0;

/// A duplicate claim is an error. Unknown claims are ignored. A null claim is absent.
#[derive(Debug, Deserialize)]
pub struct Claims {
    pub iss: String,
    aud: Audience,
    pub iat: f64,
    exp: Option<f64>,
    nbf: Option<f64>,
    pub jti: String,
    pub events: Option<Members>,
    pub sub: Option<String>,
    pub sid: Option<String>,
    pub nonce: Option<IgnoredAny>,
    pub sub_id: Option<Members>,
}

/// The members of an object, in order; no duplicates, also in nested objects.
#[derive(Debug, Clone)]
pub struct Members(pub Vec<(String, Value)>);

/// Any JSON; a duplicate member is an error, since two readers could read different ones.
struct Unique(Value);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// # Errors
    /// A claim is missing or of the wrong type.
    pub fn read(payload: &[u8]) -> Result<Self, RejectReason> {
        let claims: Self =
            serde_json::from_slice(payload).map_err(|error| RejectReason::Malformed(format!("the claims: {error}")))?;
        for (name, id) in [("jti", Some(&claims.jti)), ("sub", claims.sub.as_ref()), ("sid", claims.sid.as_ref())] {
            id.map_or(Ok(()), |id| judge_id(name, id))?;
        }
        Ok(claims)
    }

    /// The `iss`, to find the provider. Nothing of the payload is trusted before its signature was verified.
    ///
    /// # Errors
    /// It does not say.
    pub fn issuer_of(payload: &[u8]) -> Result<String, RejectReason> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let issuer: Result<Issuer, _> = serde_json::from_slice(payload);
        issuer.map(|issuer| issuer.iss).map_err(|error| RejectReason::Malformed(format!("the claims: {error}")))
    }

    /// # Errors
    /// It is for another audience.
    pub fn judge_audience(&self, ours: &[String]) -> Result<(), RejectReason> {
        let named = match &self.aud {
            Audience::One(audience) => ours.contains(audience),
            Audience::Several(audiences) => audiences.iter().any(|audience| ours.contains(audience)),
        };
        if named { Ok(()) } else { Err(RejectReason::Audience) }
    }

    /// # Errors
    /// Too old, from the future, or expired.
    pub fn judge_times(&self, now: u64, max_age: Duration, skew: Duration) -> Result<(), RejectReason> {
        let (now, skew) = (now as f64, skew.as_secs_f64());
        for (name, time) in [("iat", Some(self.iat)), ("exp", self.exp), ("nbf", self.nbf)] {
            if time.is_some_and(|time| !(0.0..=MAX_TIME).contains(&time)) {
                return Err(RejectReason::Claim(name, "is not a time"));
            }
        }
        if self.iat.floor() > now + skew {
            return Err(RejectReason::Claim("iat", "is in the future"));
        }
        if self.iat.floor() + max_age.as_secs_f64() + skew < now {
            return Err(RejectReason::Claim("iat", "is too long ago"));
        }
        if self.exp.is_some_and(|exp| exp.floor() + skew <= now) {
            return Err(RejectReason::Claim("exp", "is over"));
        }
        if self.nbf.is_some_and(|nbf| nbf.ceil() > now + skew) {
            return Err(RejectReason::Claim("nbf", "is in the future"));
        }
        Ok(())
    }

    pub fn has_exp(&self) -> bool {
        self.exp.is_some()
    }
}

/// # Errors
/// Empty, or too long.
pub fn judge_id(name: &'static str, id: &str) -> Result<(), RejectReason> {
    match id.len() {
        0 => Err(RejectReason::Claim(name, "is empty")),
        1..=MAX_ID => Ok(()),
        _ => Err(RejectReason::Claim(name, "is too long")),
    }
}

impl Members {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// In any order.
    pub fn equals(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members(Vec::new());
                while let Some((name, Unique(value))) = map.next_entry::<String, _>()? {
                    if members.get(&name).is_some() {
                        return Err(de::Error::custom("a member is duplicate"));
                    }
                    members.0.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                let mut values = Vec::new();
                while let Some(Unique(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Unique(Value::Array(values)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, Unique(value))) = map.next_entry::<String, _>()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member is duplicate"));
                    }
                }
                Ok(Unique(Value::Object(members)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
