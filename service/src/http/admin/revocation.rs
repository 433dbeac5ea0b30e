//! What one revocation asks for, parsed once into what can be written.
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess};
use serde_json::Value;
use utoipa::ToSchema;
use wire::{DerivedKeys, Kind, RevocationKey, TOKEN_ID_CLAIMS, token_id_from_jti, token_id_from_signing_input};

use super::problem::Problem;
use crate::app::options::Options;
use crate::domain::audit::Event;
use crate::domain::tenants;
use crate::model::note::Note;
use store::Ends;

const MAX_ISSUER: usize = 2048;
const MAX_ID: usize = 2048;
const MAX_REASON: usize = 512;
/// As long as the longest token that a filter can be told to take: what passes there must be revocable here.
pub const MAX_TOKEN: usize = 64 * 1024;
/// What stands for a time that does not come, in asks and answers.
pub const NEVER: &str = "never";
/// A revocation that must hold longer belongs to the issuer.
const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 86_400);

#[derive(Clone, PartialEq, Eq)]
pub struct Ask {
    pub subject: Subject,
    pub reason: Option<String>,
    /// Though no filter asks about such an issuer.
    pub new_issuer: bool,
    /// A session of whose id its issuer may make another one: only what was issued until now ends.
    pub until_now: bool,
    /// `None`: until it is lifted.
    pub ttl: Option<Duration>,
}

/// What one revocation asks for, for the API description; [`Ask::read`] reads it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described")]
pub struct RevocationAsk {
    /// token, session, user, client, key or issuer.
    kind: Option<String>,
    issuer: Option<String>,
    /// jti, sid, sub, client_id or what the issuer has for it, or the RFC 7638 thumbprint of a key.
    id: Option<String>,
    /// A JWT, instead of kind, issuer and id.
    token: Option<String>,
    reason: Option<String>,
    /// As in `48h`; `never` for a key.
    ttl: Option<String>,
    /// Whether an issuer is taken that no filter asks about.
    new_issuer: Option<bool>,
    /// Of a session: whether only what was issued until now ends, since its issuer may use the id again. By default as the
    /// provider's `reuses_session_ids` says, else false.
    until_now: Option<bool>,
}

/// A key id (`kid`) would be taken, and end nothing.
fn thumbprint(id: String) -> Result<String, Problem> {
    let is_one = URL_SAFE_NO_PAD.decode(&id).is_ok_and(|bytes| bytes.len() == 32);
    if is_one {
        return Ok(id);
    }
    Err(Problem::field(
        "id",
        "must be the key's RFC 7638 thumbprint with SHA-256, 43 characters of base64url, and no key id; `portcullis jwks` \
         prints it, and `portcullis revoke key` finds it by --jwk, --kid or --signed-token",
    ))
}

/// Who or what is revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: Kind,
    issuer: String,
    id: Id,
}

#[derive(Clone, PartialEq, Eq)]
enum Id {
    /// The issuer alone.
    None,
    /// jti, sid, sub, client_id or thumbprint.
    Text(String),
    /// Of a token without jti, with the mark that [`token_id_from_signing_input`] puts before it.
    SigningInput(Vec<u8>),
}

impl Ask {
    /// # Errors
    /// The first field that is wrong.
    pub fn read(body: &[u8], options: &Options) -> Result<Self, Problem> {
        let mut fields: Fields = serde_json::from_slice(body)
            .map_err(|error| Problem::body(&format!("the body must be one JSON object: {error}")))?;
        let token = fields.take("token", MAX_TOKEN)?;
        let kind = fields.take("kind", 16)?;
        let issuer = fields.take("issuer", MAX_ISSUER)?;
        let id = fields.take("id", MAX_ID)?;
        let reason = fields.take("reason", MAX_REASON)?;
        let ttl = fields.take("ttl", 32)?;
        let new_issuer = fields.take_bool("new_issuer")?.unwrap_or_default();
        let until_now = fields.take_bool("until_now")?;
        if let Some((name, _)) = fields.0.first() {
            return Err(Problem::field(name, "is not known here, or is given twice"));
        }
        let subject = match token {
            Some(token) => {
                for (name, given) in [("kind", &kind), ("issuer", &issuer), ("id", &id)] {
                    if given.is_some() {
                        return Err(Problem::field(name, "says again what `token` says"));
                    }
                }
                Subject::from_token(&token, options)?
            }
            None => Subject::from_fields(kind, issuer, id)?,
        };
        if subject.issuer.contains(tenants::PLACEHOLDER) && !matches!(subject.kind, Kind::SigningKey | Kind::Issuer) {
            return Err(Problem::field(
                "issuer",
                "must be one tenant's own, as its tokens have it in `iss`; the pattern stands for all tenants, for the \
                 kinds key and issuer",
            ));
        }
        if until_now.is_some() && subject.kind != Kind::Session {
            return Err(Problem::field(
                "until_now",
                "is for sessions: users, clients and issuers are ended so in any case",
            ));
        }
        let until_now = until_now.unwrap_or_else(|| subject.is_used_again(options));
        let ttl = ttl_of(ttl, subject.kind, options)?;
        Ok(Self { subject, reason, new_issuer, until_now, ttl })
    }

    /// Of another part of this service, for as long as such a revocation is kept.
    pub fn of(kind: Kind, issuer: &str, id: &str, reason: Option<&str>, options: &Options) -> Self {
        let subject = Subject { kind, issuer: issuer.to_owned(), id: Id::Text(id.to_owned()) };
        let until_now = subject.is_used_again(options);
        Self {
            subject,
            reason: reason.map(str::to_owned),
            new_issuer: false,
            until_now,
            ttl: retention_of(kind, options),
        }
    }

    pub fn ends(&self) -> Ends {
        let for_good = self.subject.kind.is_simply_dead() && !self.until_now;
        if for_good { Ends::ForGood } else { Ends::IssuedUntilNow }
    }

    /// Says in an audit entry what is revoked.
    pub fn describe(&self, event: &mut Event) {
        event.kind = Some(self.subject.kind.name().to_owned());
        event.iss = Some(self.subject.issuer.clone());
        event.reason.clone_from(&self.reason);
        let Id::Text(id) = &self.subject.id else { return };
        let place = match self.subject.kind {
            Kind::User => &mut event.sub,
            Kind::Session => &mut event.sid,
            Kind::Client => &mut event.client_id,
            Kind::Token | Kind::SigningKey | Kind::Issuer => &mut event.id,
        };
        *place = Some(id.clone());
    }

    pub fn note(&self, now: u64, by: &str) -> Note {
        let (id, signing_input_sha256) = match &self.subject.id {
            Id::None => (None, None),
            Id::Text(id) => (Some(id.clone()), None),
            Id::SigningInput(marked) => (None, Some(URL_SAFE_NO_PAD.encode(marked))),
        };
        Note {
            kind: self.subject.kind.name().to_owned(),
            iss: self.subject.issuer.clone(),
            id,
            signing_input_sha256,
            reason: self.reason.clone(),
            by: by.to_owned(),
            at: now,
            until: self.ttl.map(|ttl| now.saturating_add(ttl.as_secs())),
        }
    }
}

impl Subject {
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What a revocation of it ends. `before` is the time that it compares with.
    pub fn ends_what(&self, before: Option<u64>) -> String {
        let what = match self.kind {
            Kind::Token => return "this one token".to_owned(),
            Kind::Session if before.is_none() => {
                return "every token of this session, those that it is refreshed to as well".to_owned();
            }
            Kind::Session => "every token of this session",
            Kind::SigningKey if self.issuer.contains(tenants::PLACEHOLDER) => {
                return "every token that this key signed or will sign, for every tenant".to_owned();
            }
            Kind::SigningKey => return "every token of this issuer that this key signed or will sign".to_owned(),
            Kind::User => "every token of this user",
            Kind::Client => "every token of this client",
            Kind::Issuer if self.issuer.contains(tenants::PLACEHOLDER) => "every token of every tenant",
            Kind::Issuer => "every token of this issuer",
        };
        let before = before.unwrap_or_default();
        format!(
            "{what} whose login (auth_time) was before {before}; a token without auth_time counts by its iat, so one that a \
             refresh brings later is not ended: end its session as well, or demand auth_time by the issuer's required_claims"
        )
    }

    fn from_fields(kind: Option<String>, issuer: Option<String>, id: Option<String>) -> Result<Self, Problem> {
        let kind = kind.ok_or_else(|| Problem::field("kind", "is missing; give it, or a `token`"))?;
        let kind: Kind = kind
            .parse()
            .map_err(|()| Problem::field("kind", "must be one of token, session, user, client, key, issuer"))?;
        let issuer = filled("issuer", issuer)?;
        let id = match (kind, id) {
            (Kind::Issuer, None) => Id::None,
            (Kind::Issuer, Some(_)) => return Err(Problem::field("id", "has no meaning for an issuer")),
            (Kind::SigningKey, id) => Id::Text(thumbprint(filled("id", id)?)?),
            (_, id) => Id::Text(filled("id", id)?),
        };
        Ok(Self { kind, issuer, id })
    }

    /// The token is parsed and not verified: a forged one revokes what it names, and only operators come here. It gets the
    /// name under which filters ask about it, so what they would refuse is refused.
    fn from_token(token: &str, options: &Options) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::field("token", what);
        let token = token.trim_ascii();
        let (signing_input, _) = token.rsplit_once('.').ok_or_else(|| wrong("must be a signed JWT in compact form"))?;
        let (header, payload) =
            signing_input.split_once('.').ok_or_else(|| wrong("must be a signed JWT in compact form"))?;
        if header.is_empty() || payload.contains('.') {
            return Err(wrong("must be a signed JWT in compact form"));
        }
        // Some issuers pad (the filter's `padded`), and what was signed is named with the padding.
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| wrong("has a payload that is not base64url"))?;
        let claims: Fields =
            serde_json::from_slice(&payload).map_err(|_| wrong("has a payload that is not a JSON object"))?;
        let issuer = match claims.one("iss") {
            Ok(Some(Value::String(issuer))) => issuer,
            _ => return Err(wrong("must have the claim iss once, as a string")),
        };
        let own = options
            .token_claims
            .iter()
            .find(|(of, _)| tenants::is_issuer_or_tenant(of, issuer))
            .map(|(_, names)| names.as_slice());
        let default = TOKEN_ID_CLAIMS.map(str::to_owned);
        for name in own.unwrap_or(&default) {
            match claims.one(name) {
                Ok(Some(Value::String(id))) => {
                    return Ok(Self { kind: Kind::Token, issuer: issuer.clone(), id: Id::Text(id.clone()) });
                }
                // Of the default ones, only `jti` means the same to everybody.
                Ok(Some(_)) if own.is_none() && name != "jti" => {}
                Ok(None) => {}
                Ok(Some(_)) => return Err(wrong(&format!("must have the claim {name}, if at all, as a string"))),
                Err(()) => return Err(wrong(&format!("has the claim {name} twice"))),
            }
        }
        let id = Id::SigningInput(token_id_from_signing_input(signing_input.as_bytes()));
        Ok(Self { kind: Kind::Token, issuer: issuer.clone(), id })
    }

    /// `None` for a note that we did not write so.
    pub fn from_note(note: &Note) -> Option<Self> {
        let kind = note.kind.parse().ok()?;
        let id = match (&note.id, &note.signing_input_sha256) {
            (None, None) => Id::None,
            (Some(id), None) => Id::Text(id.clone()),
            (None, Some(marked)) => Id::SigningInput(URL_SAFE_NO_PAD.decode(marked).ok()?),
            (Some(_), Some(_)) => return None,
        };
        Some(Self { kind, issuer: note.iss.clone(), id })
    }

    /// Its name under each secret, in their order.
    pub fn keys(&self, secrets: &[DerivedKeys]) -> Vec<RevocationKey> {
        let id = match (&self.id, self.kind) {
            (Id::None, _) => Vec::new(),
            (Id::Text(jti), Kind::Token) => token_id_from_jti(jti),
            (Id::Text(id), _) => id.as_bytes().to_vec(),
            (Id::SigningInput(marked), _) => marked.clone(),
        };
        secrets.iter().map(|derived| derived.revocation_key(self.kind, &self.issuer, &id)).collect()
    }

    /// Is it a session of a provider that uses ids of ended sessions again?
    fn is_used_again(&self, options: &Options) -> bool {
        self.kind == Kind::Session && options.providers.reuses_session_ids(&self.issuer)
    }
}

fn filled(name: &str, value: Option<String>) -> Result<String, Problem> {
    match value {
        None => Err(Problem::field(name, "is missing")),
        Some(value) if value.is_empty() => Err(Problem::field(name, "must not be empty")),
        Some(value) => Ok(value),
    }
}

/// How long a revocation of this kind must hold at least, and holds if nothing else is asked; `None` is for ever.
///
/// What is simply dead is dead for tokens that are issued later too: a thief goes on signing with a stolen key, and a
/// session goes on getting tokens. So the lifetime of one token is not enough for those.
fn retention_of(kind: Kind, options: &Options) -> Option<Duration> {
    match kind {
        Kind::Token => Some(Duration::from_secs(options.retention_seconds())),
        Kind::Session | Kind::User | Kind::Client | Kind::Issuer => {
            Some(Duration::from_secs(options.login_retention_seconds()))
        }
        Kind::SigningKey => None,
    }
}

fn ttl_of(text: Option<String>, kind: Kind, options: &Options) -> Result<Option<Duration>, Problem> {
    let retention = retention_of(kind, options);
    let Some(text) = text else { return Ok(retention) };
    if text == NEVER {
        return match retention {
            None => Ok(None),
            Some(_) => Err(Problem::field("ttl", "may be `never` for a signing key only")),
        };
    }
    let ttl = wire::parse_duration(&text).map_err(|error| Problem::field("ttl", &format!("is wrong: {error}")))?;
    // A key that is to come back, since its issuer has withdrawn it, must still outlive what the key signed.
    let least = retention.unwrap_or(Duration::from_secs(options.login_retention_seconds()));
    if ttl < least {
        let seconds = least.as_secs();
        return Err(Problem::field(
            "ttl",
            &format!("must be at least {seconds}s, else what was revoked could live longer than its revocation"),
        ));
    }
    if ttl > MAX_TTL {
        return Err(Problem::field("ttl", "must be at most ten years"));
    }
    Ok(Some(ttl))
}

/// The members of an object as they were sent, twice if they were sent twice.
struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Null is absent. Twice is an error, also with null.
    fn one(&self, name: &str) -> Result<Option<&Value>, ()> {
        let mut found = self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (value, None) => Ok(value.filter(|value| !value.is_null())),
            (_, Some(_)) => Err(()),
        }
    }

    fn take(&mut self, name: &str, max: usize) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        match self.0.swap_remove(at).1 {
            Value::String(text) if text.len() <= max => Ok(Some(text)),
            Value::String(_) => Err(Problem::field(name, &format!("must have at most {max} bytes"))),
            _ => Err(Problem::field(name, "must be a string")),
        }
    }

    fn take_bool(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        match self.0.swap_remove(at).1 {
            Value::Bool(value) => Ok(Some(value)),
            _ => Err(Problem::field(name, "must be true or false")),
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::options::tests::options;
    use wire::Secret;

    fn ask(json: &str) -> Result<Ask, String> {
        Ask::read(json.as_bytes(), &options()).map_err(|problem| serde_json::to_string(&problem).unwrap())
    }

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    fn key(ask: &Ask) -> RevocationKey {
        ask.subject.keys(&[Secret::new(&[1; 32]).unwrap().derive()])[0]
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (field, json) in [
            ("kind", r#"{"issuer":"i","id":"x"}"#),
            ("kind", r#"{"kind":"nobody","issuer":"i","id":"x"}"#),
            ("kind", r#"{"kind":5,"issuer":"i","id":"x"}"#),
            ("issuer", r#"{"kind":"user","id":"x"}"#),
            ("issuer", r#"{"kind":"user","issuer":"","id":"x"}"#),
            ("id", r#"{"kind":"user","issuer":"i"}"#),
            ("id", r#"{"kind":"user","issuer":"i","id":null}"#),
            ("id", r#"{"kind":"issuer","issuer":"i","id":"x"}"#),
            ("id", r#"{"kind":"user","issuer":"i","id":"x","id":"y"}"#),
            ("colour", r#"{"kind":"user","issuer":"i","id":"x","colour":"red"}"#),
            ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"1h"}"#),
            ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"soon"}"#),
            ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"99999d"}"#),
            ("new_issuer", r#"{"kind":"user","issuer":"i","id":"x","new_issuer":"yes"}"#),
            ("until_now", r#"{"kind":"user","issuer":"i","id":"x","until_now":true}"#),
            ("until_now", r#"{"kind":"session","issuer":"i","id":"x","until_now":"yes"}"#),
            ("token", r#"{"token":"nonsense"}"#),
            ("token", r#"{"token":"a.b.c.d.e"}"#),
            ("kind", r#"{"token":"e30.e30.","kind":"token"}"#),
        ] {
            let problem = ask(json).map(|_| ()).unwrap_err();
            assert!(problem.contains(&format!("\"field\":\"{field}\"")), "{json} gave {problem}");
        }
        for body in ["", "[]", "{", "null", r#"{"kind":"user"} {}"#] {
            assert!(ask(body).map(|_| ()).unwrap_err().contains("invalid_body"), "{body}");
        }
    }

    #[test]
    fn a_ttl_may_be_longer_than_retention_and_not_shorter() {
        let with = |ttl: &str| ask(&format!(r#"{{"kind":"issuer","issuer":"i","ttl":"{ttl}"}}"#));
        assert!(with("2592300s").is_err());
        assert!(with("never").is_err());
        assert_eq!(with("2592301s").unwrap().ttl, Some(Duration::from_secs(2_592_301)));
        assert_eq!(ask(r#"{"kind":"issuer","issuer":"i"}"#).unwrap().ttl, Some(Duration::from_secs(2_592_301)));
    }

    // A dead session or key that expired after a token's lifetime let tokens through that were issued since.
    #[test]
    fn a_session_holds_as_long_as_sessions_live_and_a_key_for_ever() {
        let thumbprint = "A".repeat(43);
        let with =
            |kind: &str, ttl: &str| ask(&format!(r#"{{"kind":"{kind}","issuer":"i","id":"{thumbprint}"{ttl}}}"#));
        let month = Some(Duration::from_secs(30 * 86_400 + 301));
        assert_eq!(with("session", "").unwrap().ttl, month);
        assert!(with("session", r#","ttl":"2592300s""#).is_err());
        assert!(with("session", r#","ttl":"never""#).is_err());
        assert_eq!(with("key", "").unwrap().ttl, None);
        assert_eq!(with("key", r#","ttl":"never""#).unwrap().ttl, None);
        assert!(with("key", r#","ttl":"2592300s""#).is_err());
        assert_eq!(with("key", r#","ttl":"2592301s""#).unwrap().ttl, month);
        assert_eq!(with("token", "").unwrap().ttl, Some(Duration::from_secs(86_701)));
        assert_eq!(with("key", "").unwrap().note(5, "admin").until, None);
    }

    #[test]
    fn a_session_ends_for_good_unless_its_id_is_used_again() {
        let with = |more: &str| ask(&format!(r#"{{"kind":"session","issuer":"i","id":"x"{more}}}"#)).unwrap().ends();
        assert_eq!((with(""), with(r#","until_now":false"#)), (Ends::ForGood, Ends::ForGood));
        assert_eq!(with(r#","until_now":true"#), Ends::IssuedUntilNow);
    }

    #[test]
    fn what_ends_is_said_for_each_kind() {
        let thumbprint = "A".repeat(43);
        for kind in ["token", "session", "user", "client", "key"] {
            let ask = ask(&format!(r#"{{"kind":"{kind}","issuer":"i","id":"{thumbprint}"}}"#)).unwrap();
            let before = (ask.ends() == Ends::IssuedUntilNow).then_some(1234);
            let said = ask.subject.ends_what(before);
            assert_eq!(said.contains("before 1234"), before.is_some(), "{kind}: {said}");
        }
    }

    #[test]
    fn a_token_is_named_by_its_jti_and_else_by_its_signing_input() {
        let by_token = ask(&format!(r#"{{"token":"{}"}}"#, jwt(r#"{"iss":"i","jti":"x"}"#))).unwrap();
        let by_jti = ask(r#"{"kind":"token","issuer":"i","id":"x"}"#).unwrap();
        assert_eq!(key(&by_token), key(&by_jti));
        let token = jwt(r#"{"iss":"i"}"#);
        let without = ask(&format!(r#"{{"token":"{token}"}}"#)).unwrap();
        let other_signature = token.replace("c2ln", "b3RoZXI");
        assert_eq!(key(&without), key(&ask(&format!(r#"{{"token":"{other_signature}"}}"#)).unwrap()));
        assert_ne!(key(&without), key(&by_jti));
        for payload in
            [r#"{"jti":"x"}"#, r#"{"iss":null}"#, r#"{"iss":"i","jti":5}"#, r#"{"iss":"i","jti":null,"jti":"x"}"#]
        {
            assert!(ask(&format!(r#"{{"token":"{}"}}"#, jwt(payload))).is_err(), "{payload}");
        }
        // The filter has the same names, in the same order.
        for payload in
            [r#"{"iss":"i","uti":"x"}"#, r#"{"iss":"i","jti":null,"uti":"x"}"#, r#"{"iss":"i","jti":"x","uti":"y"}"#]
        {
            assert_eq!(key(&ask(&format!(r#"{{"token":"{}"}}"#, jwt(payload))).unwrap()), key(&by_jti), "{payload}");
        }
        let number = jwt(r#"{"iss":"i","uti":5}"#);
        let number = ask(&format!(r#"{{"token":"{number}"}}"#)).unwrap();
        assert!(matches!(&number.subject.id, Id::SigningInput(_)));
        let padded = ask(r#"{"token":"e30=.eyJpc3MiOiJpIiwianRpIjoieCJ9IA==.c2ln"}"#).unwrap();
        assert_eq!(key(&padded), key(&by_jti));
        // A jti that is null is none.
        let null = jwt(r#"{"iss":"i","jti":null}"#);
        let null = ask(&format!(r#"{{"token":"{null}"}}"#)).unwrap();
        assert!(matches!(&null.subject.id, Id::SigningInput(_)));
    }

    #[test]
    fn an_issuer_may_name_its_tokens_by_other_claims() {
        let own = Options { token_claims: vec![("i".into(), vec!["tid".into(), "jti".into()])], ..options() };
        let read =
            |payload: &str| Ask::read(format!(r#"{{"token":"{}"}}"#, jwt(payload)).as_bytes(), &own).map_err(|_| ());
        let by_id = key(&ask(r#"{"kind":"token","issuer":"i","id":"x"}"#).unwrap());
        assert_eq!(key(&read(r#"{"iss":"i","tid":"x","jti":"y"}"#).unwrap()), by_id);
        assert_eq!(key(&read(r#"{"iss":"i","jti":"x"}"#).unwrap()), by_id);
        assert_ne!(key(&read(r#"{"iss":"j","tid":"x","jti":"y"}"#).unwrap()), by_id);
        assert!(read(r#"{"iss":"i","tid":5,"jti":"x"}"#).is_err());
        assert!(read(r#"{"iss":"i","tid":"x","tid":"x"}"#).is_err());
    }

    #[test]
    fn a_pattern_is_no_issuer() {
        let pattern = "https://login.example/{tenant}/v2.0";
        let body = |kind: &str| format!(r#"{{"kind":"{kind}","issuer":"{pattern}","id":"x"}}"#);
        assert!(ask(&body("user")).is_err() && ask(&body("session")).is_err());
        assert!(ask(&format!(r#"{{"kind":"issuer","issuer":"{pattern}"}}"#)).is_ok());
    }

    #[test]
    fn a_note_leads_back_to_the_same_names() {
        for json in [
            r#"{"kind":"user","issuer":"i","id":"x"}"#.to_owned(),
            r#"{"kind":"token","issuer":"i","id":"x"}"#.to_owned(),
            r#"{"kind":"issuer","issuer":"i"}"#.to_owned(),
            format!(r#"{{"token":"{}"}}"#, jwt(r#"{"iss":"i"}"#)),
        ] {
            let ask = ask(&json).unwrap();
            assert!(Subject::from_note(&ask.note(5, "admin")).unwrap() == ask.subject, "{json}");
        }
    }
}
