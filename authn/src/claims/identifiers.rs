//! The claims that identify what can be revoked: for each kind, the first of an issuer's claims that is present.
use std::borrow::Cow;

use jose::json::{Json, Object};
use wire::{Kind, TOKEN_ID_CLAIMS};

use crate::claims::members::optional_string;
use crate::claims::provider::Preset;
use crate::config::{self, Invalid, OfflineSessions, OneOrMany};
use crate::reject::{Cause, Rejection};

/// Of one issuer's tokens.
#[derive(Debug, Clone)]
pub(crate) struct Identifiers {
    token: Vec<Claim>,
    session: Vec<Claim>,
    user: Vec<Claim>,
    client: Vec<Claim>,
    /// Offline tokens belong to sessions of their own.
    offline_apart: bool,
}

#[derive(Debug, Clone)]
struct Claim {
    path: Vec<String>,
    /// It is this issuer's own claim, so a value that is not a string is an error. A claim that only some providers use
    /// in this way may be anything elsewhere: then it is ignored.
    is_certain: bool,
}

/// Valid for every issuer (RFC 7519, RFC 8693, RFC 9068, OpenID Connect).
const STANDARD: [&str; 5] = ["jti", "sid", "sub", "client_id", "azp"];
const SESSION: [&str; 3] = ["sid", "session_state", "origin_jti"];
const USER: [&str; 1] = ["sub"];
const CLIENT: [&str; 4] = ["client_id", "azp", "cid", "appid"];
const MAX_CLAIMS: usize = 8;
/// The prefix of an offline session's id: a provider may have another session with the same id.
const OFFLINE: &str = "offline:";
const OFFLINE_ACCESS: &str = "offline_access";

/// Was it requested with the scope `offline_access` (OpenID Connect Core section 11)?
fn is_offline(payload: &Object<'_>) -> bool {
    let names = |claim: &str| match payload.claim(claim) {
        Some(Json::String(words)) => words.split(' ').any(|word| word == OFFLINE_ACCESS),
        Some(Json::Array(words)) => words.iter().any(|word| word.as_str() == Some(OFFLINE_ACCESS)),
        _ => false,
    };
    names("scope") || names("scp")
}

impl Identifiers {
    pub(crate) fn compile(document: &config::Issuer, preset: Option<&Preset>, at: &str) -> Result<Self, Invalid> {
        let written = document.revocation_claims.as_ref();
        let field = |name: &str| format!("{at}.revocation_claims.{name}");
        let choose = |name: &str,
                      written: Option<&config::ClaimNames>,
                      preset: Option<&[&[&str]]>,
                      default: &[&str]| match (written, preset) {
            (Some(names), _) => compile(names, &field(name)),
            (None, Some(paths)) => Ok(paths.iter().map(|path| Claim::certain(path)).collect()),
            (None, None) => Ok(default.iter().map(|name| Claim::default(name)).collect()),
        };
        let this = Self {
            token: choose("token", written.and_then(|claims| claims.token.as_ref()), None, &TOKEN_ID_CLAIMS)?,
            session: choose(
                "session",
                written.and_then(|claims| claims.session.as_ref()),
                preset.map(|preset| preset.session),
                &SESSION,
            )?,
            user: choose(
                "user",
                written.and_then(|claims| claims.user.as_ref()),
                preset.map(|preset| preset.user),
                &USER,
            )?,
            client: choose(
                "client",
                written.and_then(|claims| claims.client.as_ref()),
                preset.map(|preset| preset.client),
                &CLIENT,
            )?,
            offline_apart: match (document.offline_sessions, preset) {
                (Some(written), _) => written == OfflineSessions::Apart,
                (None, preset) => preset.is_some_and(|preset| preset.offline_apart),
            },
        };
        // The service finds the id of a token by the same claims (`--token-claims`), which are names only.
        if let Some(index) = this.token.iter().position(|claim| claim.path.len() != 1) {
            return Err(Invalid::new(format!("{}[{index}]", field("token")), "must be a claim of the token itself"));
        }
        Ok(this)
    }

    fn of(&self, kind: Kind) -> &[Claim] {
        match kind {
            Kind::Token => &self.token,
            Kind::Session | Kind::StepUp => &self.session,
            Kind::User => &self.user,
            Kind::Client => &self.client,
            Kind::SigningKey | Kind::Issuer => &[],
        }
    }

    /// The first identifier that is present. An empty one counts as absent, except for a token's id, where the empty
    /// string is the id.
    ///
    /// # Errors
    /// [`crate::reject::RejectReason::InvalidClaim`] if it is not a string.
    pub(crate) fn find<'j>(&self, kind: Kind, payload: &'j Object<'_>) -> Result<Option<&'j str>, Rejection> {
        for claim in self.of(kind) {
            match claim.value(payload) {
                Some(Json::String(id)) if !id.is_empty() || kind == Kind::Token => return Ok(Some(id)),
                None | Some(Json::String(_)) => {}
                Some(_) if claim.is_certain => return Err(claim.malformed()),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// The ids of the sessions that a token belongs to. If offline sessions are separate, an offline token's id has the
    /// prefix [`OFFLINE`]. Any other token may also come from an offline session: a client that refreshes may request
    /// less scope, and must not be able to choose what ends the token.
    ///
    /// # Errors
    /// As for [`Identifiers::find`].
    pub(crate) fn sessions<'j>(
        &self,
        payload: &'j Object<'_>,
    ) -> Result<impl Iterator<Item = Cow<'j, str>> + use<'j>, Rejection> {
        let id = self.find(Kind::Session, payload)?;
        let own = id.filter(|_| !(self.offline_apart && is_offline(payload))).map(Cow::Borrowed);
        let offline = id.filter(|_| self.offline_apart).map(|id| format!("{OFFLINE}{id}").into());
        Ok(own.into_iter().chain(offline))
    }

    /// Could a token of this issuer have an id of this kind?
    pub(crate) fn can_name(&self, kind: Kind) -> bool {
        match kind {
            Kind::Session | Kind::StepUp | Kind::User | Kind::Client => !self.of(kind).is_empty(),
            // Without a claim, a token is identified by its signed part.
            Kind::Token | Kind::SigningKey | Kind::Issuer => true,
        }
    }

    /// Checks that two descriptions of one token agree, as far as both have the claims.
    ///
    /// # Errors
    /// [`Cause::AnswerContradicts`] for the first claim that differs.
    pub(crate) fn check_same(&self, token: &Object<'_>, answer: &Object<'_>) -> Result<(), Rejection> {
        for claim in [&self.token, &self.session, &self.user, &self.client].into_iter().flatten() {
            if let (Some(ours), Some(theirs)) = (claim.value(token), claim.value(answer))
                && ours != theirs
            {
                return Err(Rejection::with_detail(Cause::AnswerContradicts, claim.path.join(".")));
            }
        }
        Ok(())
    }

    /// Absent and malformed are different results, also for a claim with a lower priority.
    ///
    /// # Errors
    /// [`crate::reject::RejectReason::InvalidClaim`] if it is not a string.
    pub(crate) fn check(&self, payload: &Object<'_>) -> Result<(), Rejection> {
        for name in STANDARD {
            optional_string(payload, name)?;
        }
        for claim in [&self.token, &self.session, &self.user, &self.client].into_iter().flatten() {
            if claim.is_certain && !matches!(claim.value(payload), None | Some(Json::String(_))) {
                return Err(claim.malformed());
            }
        }
        Ok(())
    }

    /// The claims that are read, in order.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        self.of(kind).iter().map(|claim| claim.path.join(".")).collect()
    }
}

impl Claim {
    fn certain(path: &[&str]) -> Self {
        Self { path: path.iter().map(|name| (*name).to_owned()).collect(), is_certain: true }
    }

    fn default(name: &str) -> Self {
        Self { path: vec![name.to_owned()], is_certain: STANDARD.contains(&name) }
    }

    fn value<'j, 't>(&self, payload: &'j Object<'t>) -> Option<&'j Json<'t>> {
        let (first, rest) = self.path.split_first()?;
        payload.claim(first)?.path(rest)
    }

    fn malformed(&self) -> Rejection {
        Rejection::with_detail(Cause::ClaimNotString, self.path.join("."))
    }
}

fn compile(names: &config::ClaimNames, at: &str) -> Result<Vec<Claim>, Invalid> {
    let paths: Vec<&[String]> = match names {
        config::ClaimNames::One(name) => vec![std::slice::from_ref(name)],
        config::ClaimNames::Several(several) => several.iter().map(OneOrMany::as_slice).collect(),
    };
    if paths.is_empty() || paths.len() > MAX_CLAIMS {
        return Err(Invalid::new(at, format!("name 1 to {MAX_CLAIMS} claims, or leave the field out")));
    }
    let mut claims: Vec<Claim> = Vec::with_capacity(paths.len());
    for (index, path) in paths.into_iter().enumerate() {
        if path.is_empty() || path.iter().any(String::is_empty) {
            return Err(Invalid::new(format!("{at}[{index}]"), "name a claim"));
        }
        if claims.iter().any(|other| other.path == path) {
            return Err(Invalid::new(format!("{at}[{index}]"), "is there twice"));
        }
        claims.push(Claim { path: path.to_vec(), is_certain: true });
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    use crate::policy::Policy;

    fn invalid(issuer: &Value, rule: &Value) -> Option<String> {
        let mut document = json!({
            "issuers": [{
                "issuer": "i", "audiences": "any", "algorithms": ["HS256"], "keys": [{ "secret_env": "S", "alg": "HS256" }],
            }],
            "rules": [{ "access": "required" }],
            "revocation": { "cluster": "c", "secret_env": "S", "kinds": ["token", "session", "user"] },
        });
        for (place, changes) in [("issuers", issuer), ("rules", rule)] {
            for (name, value) in changes.as_object().unwrap() {
                document[place][0][name] = value.clone();
            }
        }
        let policy = Policy::from_json(document.to_string().as_bytes(), &|_| Some(vec![b'x'; 32]));
        policy.err().map(|invalid| invalid.field)
    }

    #[test]
    fn a_wrong_name_of_a_claim_is_an_error_that_says_where() {
        let none = json!({});
        for good in [
            json!({}),
            json!({ "revocation_claims": {} }),
            json!({ "revocation_claims": { "session": "s", "user": ["a", ["b", "c"]], "token": ["x", ["y"]] } }),
            json!({ "provider": "keycloak", "token_kinds": ["access", "id"], "access_claims": [] }),
        ] {
            assert_eq!(invalid(&good, &none), None, "{good}");
        }
        for (field, bad) in [
            ("revocation_claims.session", json!({ "revocation_claims": { "session": [] } })),
            ("revocation_claims.user[0]", json!({ "revocation_claims": { "user": "" } })),
            ("revocation_claims.user[1]", json!({ "revocation_claims": { "user": ["a", ["b", ""]] } })),
            ("revocation_claims.user[1]", json!({ "revocation_claims": { "user": ["a", []] } })),
            ("revocation_claims.client[1]", json!({ "revocation_claims": { "client": ["a", ["a"]] } })),
            ("revocation_claims.client", json!({ "revocation_claims": { "client": vec!["a"; 9] } })),
            ("revocation_claims.token[1]", json!({ "revocation_claims": { "token": ["jti", ["a", "b"]] } })),
            ("token_kinds", json!({ "token_kinds": [] })),
            ("access_types[1]", json!({ "access_types": ["user", ""] })),
            ("access_claims[0]", json!({ "access_claims": [""] })),
            ("access_claims", json!({ "token_kinds": ["id"], "access_claims": ["azp"] })),
            ("access_types", json!({ "provider": "google", "access_types": ["user"] })),
        ] {
            assert_eq!(invalid(&bad, &none), Some(format!("issuers[0].{field}")), "{bad}");
        }
        // Shapes, which serde refuses.
        for bad in [
            json!({ "revocation_claims": { "issuer": "iss" } }),
            json!({ "revocation_claims": { "user": 5 } }),
            json!({ "provider": "nobody" }),
            json!({ "token_kinds": ["refresh"] }),
        ] {
            assert!(invalid(&bad, &none).is_some_and(|field| field.starts_with("issuers[0]")), "{bad}");
        }
    }

    #[test]
    fn an_offline_token_has_a_session_of_its_own_where_those_are_apart() {
        let session = |issuer: Value, claims: Value| {
            let mut document = json!({
                "issuer": "i", "audiences": "any", "algorithms": ["HS256"], "keys": [{ "secret_env": "S", "alg": "HS256" }],
            });
            issuer.as_object().unwrap().iter().for_each(|(name, value)| document[name] = value.clone());
            let document: config::Issuer = serde_json::from_value(document).unwrap();
            let identifiers = Identifiers::compile(&document, document.provider.map(Preset::of).as_ref(), "i").unwrap();
            let text = claims.to_string();
            let claims = Json::parse(text.as_bytes()).unwrap();
            let found: Vec<_> = identifiers.sessions(claims.as_object().unwrap()).unwrap().collect();
            found.join(" ")
        };
        let apart = json!({ "offline_sessions": "apart" });
        for (issuer, scope, expected) in [
            (&json!({}), json!("openid offline_access"), "s"),
            (&apart, json!("openid offline_access"), "offline:s"),
            (&apart, json!(["offline_access"]), "offline:s"),
            (&apart, json!("openid offline_access_too"), "s offline:s"),
            (&apart, json!(null), "s offline:s"),
            (&json!({ "provider": "keycloak" }), json!("offline_access"), "offline:s"),
            (&json!({ "provider": "keycloak", "offline_sessions": "together" }), json!("offline_access"), "s"),
            (&json!({ "provider": "auth0" }), json!("offline_access"), "s"),
        ] {
            let found = session(issuer.clone(), json!({ "sid": "s", "scope": scope }));
            assert_eq!(found, expected, "{issuer} {scope}");
        }
        assert_eq!(session(apart.clone(), json!({ "sid": "s", "scp": "offline_access" })), "offline:s");
        assert_eq!(session(apart, json!({ "scope": "offline_access" })), "");
    }

    #[test]
    fn a_rule_may_demand_only_what_can_be_had() {
        let none = json!({});
        assert_eq!(invalid(&none, &json!({ "revocable_by": ["session", "user"] })), None);
        for (index, rule) in [
            (0, json!({ "revocable_by": ["token"] })),
            (0, json!({ "revocable_by": ["issuer"] })),
            (1, json!({ "revocable_by": ["session", "session"] })),
            (0, json!({ "revocable_by": ["session"], "revocation": "off" })),
            // `revocation.kinds` has none.
            (0, json!({ "revocable_by": ["client"] })),
        ] {
            assert_eq!(invalid(&none, &rule), Some(format!("rules[0].revocable_by[{index}]")), "{rule}");
        }
        let google = json!({ "provider": "google" });
        let rule = json!({ "revocable_by": ["user", "session"] });
        assert_eq!(invalid(&google, &rule), Some("rules[0].revocable_by[1]".to_owned()));
        let public = json!({ "access": "public", "revocable_by": ["user"] });
        assert_eq!(invalid(&none, &public), Some("rules[0].revocable_by".to_owned()));
    }
}
