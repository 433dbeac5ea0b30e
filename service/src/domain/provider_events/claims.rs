//! The claims of a logout token or a security event, read strictly, and those judged that both have.
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::refused::Refused;

/// The longest id of a session or user, in bytes: as the admin API has it.
pub const MAX_ID: usize = 2048;
/// Times beyond are nonsense, and no longer exact.
const MAX_TIME: f64 = 9_007_199_254_740_992.0;

/// A claim twice is an error. Claims that are not here are not understood and so ignored. One that is null is absent.
#[derive(Debug, Deserialize)]
pub struct Claims {
    pub iss: String,
    aud: Audience,
    iat: f64,
    exp: Option<f64>,
    nbf: Option<f64>,
    pub jti: String,
    pub events: Members,
    pub sub: Option<String>,
    pub sid: Option<String>,
    pub nonce: Option<IgnoredAny>,
    pub sub_id: Option<Members>,
}

/// Of an object, in its order; none is there twice, and none is in any object within.
#[derive(Debug)]
pub struct Members(pub Vec<(String, Value)>);

/// Any JSON; a member twice is an error. Two readers could take two of them.
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
    pub fn read(payload: &[u8]) -> Result<Self, Refused> {
        let claims: Self =
            serde_json::from_slice(payload).map_err(|error| Refused::Malformed(format!("the claims: {error}")))?;
        for (name, id) in [("jti", Some(&claims.jti)), ("sub", claims.sub.as_ref()), ("sid", claims.sid.as_ref())] {
            id.map_or(Ok(()), |id| judge_id(name, id))?;
        }
        Ok(claims)
    }

    /// Who says that it is from: nothing of the payload is to be believed before its signature.
    ///
    /// # Errors
    /// It does not say.
    pub fn issuer_of(payload: &[u8]) -> Result<String, Refused> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let issuer: Result<Issuer, _> = serde_json::from_slice(payload);
        issuer.map(|issuer| issuer.iss).map_err(|error| Refused::Malformed(format!("the claims: {error}")))
    }

    /// # Errors
    /// It is for somebody else.
    pub fn judge_audience(&self, ours: &[String]) -> Result<(), Refused> {
        let named = match &self.aud {
            Audience::One(audience) => ours.contains(audience),
            Audience::Several(audiences) => audiences.iter().any(|audience| ours.contains(audience)),
        };
        if named { Ok(()) } else { Err(Refused::Audience) }
    }

    /// # Errors
    /// Too old, from the future, or over.
    pub fn judge_times(&self, now: u64, max_age: Duration, skew: Duration) -> Result<(), Refused> {
        let (now, skew) = (now as f64, skew.as_secs_f64());
        for (name, time) in [("iat", Some(self.iat)), ("exp", self.exp), ("nbf", self.nbf)] {
            if time.is_some_and(|time| !(0.0..=MAX_TIME).contains(&time)) {
                return Err(Refused::Claim(name, "is no time"));
            }
        }
        if self.iat.floor() > now + skew {
            return Err(Refused::Claim("iat", "is in the future"));
        }
        if self.iat.floor() + max_age.as_secs_f64() + skew < now {
            return Err(Refused::Claim("iat", "is too long ago"));
        }
        if self.exp.is_some_and(|exp| exp.floor() + skew <= now) {
            return Err(Refused::Claim("exp", "is over"));
        }
        if self.nbf.is_some_and(|nbf| nbf.ceil() > now + skew) {
            return Err(Refused::Claim("nbf", "is in the future"));
        }
        Ok(())
    }

    pub fn has_exp(&self) -> bool {
        self.exp.is_some()
    }
}

/// # Errors
/// Empty, or too long to be looked up.
pub fn judge_id(name: &'static str, id: &str) -> Result<(), Refused> {
    match id.len() {
        0 => Err(Refused::Claim(name, "is empty")),
        1..=MAX_ID => Ok(()),
        _ => Err(Refused::Claim(name, "is too long")),
    }
}

impl Members {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value)
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
                        return Err(de::Error::custom("a member is there twice"));
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
                        return Err(de::Error::custom("a member is there twice"));
                    }
                }
                Ok(Unique(Value::Object(members)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 10_000;
    const MAX_AGE: Duration = Duration::from_secs(120);
    const SKEW: Duration = Duration::from_secs(30);

    fn with(members: Value) -> Value {
        let mut claims = json!({ "iss": "i", "aud": "a", "iat": NOW, "jti": "j", "events": {} });
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn read(members: Value) -> Result<Claims, Refused> {
        Claims::read(with(members).to_string().as_bytes())
    }

    #[test]
    fn a_claim_that_is_missing_wrong_or_there_twice_is_refused() {
        for name in ["iss", "aud", "iat", "jti", "events"] {
            let mut claims = with(json!({}));
            claims.as_object_mut().unwrap().remove(name);
            assert!(Claims::read(claims.to_string().as_bytes()).unwrap_err().to_string().contains(name), "{name}");
            assert!(read(json!({ name: null })).is_err(), "{name}");
        }
        for wrong in [
            json!({ "sub": 5 }),
            json!({ "sub": "" }),
            json!({ "sid": "" }),
            json!({ "sid": "x".repeat(MAX_ID + 1) }),
            json!({ "jti": "" }),
            json!({ "iat": "10000" }),
            json!({ "events": [] }),
            json!({ "aud": [5] }),
            json!({ "sub_id": "u" }),
            json!({ "sub_id": [] }),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        let twice = |text: &str| format!(r#"{{"iss":"i","aud":"a","iat":1,"jti":"j",{text}}}"#);
        for text in [
            r#""events":{},"sub":"a","sub":"b""#,
            r#""events":{"e":{},"e":{}}"#,
            r#""events":{},"events":{}"#,
            r#""events":{"e":{"a":1,"a":1}}"#,
            r#""events":{},"sub_id":{"a":[{"b":{"c":1,"c":2}}]}"#,
        ] {
            assert!(Claims::read(twice(text).as_bytes()).is_err(), "{text}");
        }
        assert!(Claims::read(twice(r#""events":{},"sub":"a""#).as_bytes()).is_ok());
    }

    #[test]
    fn one_of_several_audiences_must_be_ours() {
        let ours = ["client".to_owned()];
        for (aud, good) in [
            (json!("client"), true),
            (json!(["other", "client"]), true),
            (json!("clien"), false),
            (json!([]), false),
            (json!(["other"]), false),
        ] {
            assert_eq!(read(json!({ "aud": aud })).unwrap().judge_audience(&ours).is_ok(), good, "{aud}");
        }
    }

    #[test]
    fn times_are_judged_at_their_boundaries() {
        for (claims, good) in [
            (json!({ "iat": NOW + 30 }), true),
            (json!({ "iat": NOW + 31 }), false),
            (json!({ "iat": NOW - 150 }), true),
            (json!({ "iat": NOW - 151 }), false),
            (json!({ "iat": -1 }), false),
            (json!({ "iat": 1e300 }), false),
            (json!({ "exp": NOW - 29 }), true),
            (json!({ "exp": NOW - 30 }), false),
            (json!({ "exp": 1e300 }), false),
            (json!({ "nbf": NOW + 30 }), true),
            (json!({ "nbf": NOW as f64 + 30.5 }), false),
        ] {
            assert_eq!(read(claims.clone()).unwrap().judge_times(NOW, MAX_AGE, SKEW).is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn a_nonce_is_seen_whatever_it_is() {
        assert!(read(json!({})).unwrap().nonce.is_none());
        for nonce in [json!("n"), json!(5), json!(false)] {
            assert!(read(json!({ "nonce": nonce })).unwrap().nonce.is_some(), "{nonce}");
        }
    }

    #[test]
    fn an_optional_claim_that_is_null_is_absent() {
        let claims =
            read(json!({ "sub": null, "sid": null, "exp": null, "nbf": null, "nonce": null, "sub_id": null })).unwrap();
        assert!(claims.sub.is_none() && claims.sid.is_none() && claims.sub_id.is_none() && !claims.has_exp());
        assert!(claims.nonce.is_none() && claims.judge_times(NOW, MAX_AGE, SKEW).is_ok());
    }
}
