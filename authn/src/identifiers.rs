//! Which claims name what can be revoked: of each kind, the first of an issuer's claims that is there.
use wire::{Kind, TOKEN_ID_CLAIMS};

use crate::cause::Cause;
use crate::claims::optional_string;
use crate::config::{self, OneOrMany};
use crate::fault::Denial;
use crate::invalid::Invalid;
use crate::json::{Json, Object};
use crate::provider::Preset;

/// Of one issuer's tokens.
#[derive(Debug, Clone)]
pub(crate) struct Identifiers {
    token: Vec<Claim>,
    session: Vec<Claim>,
    user: Vec<Claim>,
    client: Vec<Claim>,
}

#[derive(Debug, Clone)]
struct Claim {
    path: Vec<String>,
    /// It is this issuer's own, so that another value than a string is an error. A claim that only some providers mean so
    /// may be anything elsewhere: then it does not count.
    is_certain: bool,
}

/// What is certain of every issuer (RFC 7519, RFC 8693, RFC 9068, OpenID Connect).
const STANDARD: [&str; 5] = ["jti", "sid", "sub", "client_id", "azp"];
const SESSION: [&str; 3] = ["sid", "session_state", "origin_jti"];
const USER: [&str; 1] = ["sub"];
const CLIENT: [&str; 4] = ["client_id", "azp", "cid", "appid"];
const MAX_CLAIMS: usize = 8;

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
        };
        // The service finds the id of a token by the same claims (`--token-claims`), and those are names.
        if let Some(place) = this.token.iter().position(|claim| claim.path.len() != 1) {
            return Err(Invalid::new(format!("{}[{place}]", field("token")), "must be a claim of the token itself"));
        }
        Ok(this)
    }

    fn of(&self, kind: Kind) -> &[Claim] {
        match kind {
            Kind::Token => &self.token,
            Kind::Session => &self.session,
            Kind::User => &self.user,
            Kind::Client => &self.client,
            Kind::SigningKey | Kind::Issuer => &[],
        }
    }

    /// The first that is there. An empty one names nobody, but for tokens, where it is the id that it is.
    ///
    /// # Errors
    /// [`crate::fault::Fault::InvalidClaim`] where it is no string.
    pub(crate) fn find<'j>(&self, kind: Kind, payload: &'j Object<'_>) -> Result<Option<&'j str>, Denial> {
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

    /// Absent and malformed are two cases, also for a claim that another one comes before.
    ///
    /// # Errors
    /// [`crate::fault::Fault::InvalidClaim`] for one that is no string.
    pub(crate) fn check(&self, payload: &Object<'_>) -> Result<(), Denial> {
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

    /// The claims that are looked at, in their order.
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

    fn malformed(&self) -> Denial {
        Denial::with_detail(Cause::ClaimNotString, self.path.join("."))
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
    for (place, path) in paths.into_iter().enumerate() {
        if path.is_empty() || path.iter().any(String::is_empty) {
            return Err(Invalid::new(format!("{at}[{place}]"), "name a claim"));
        }
        if claims.iter().any(|other| other.path == path) {
            return Err(Invalid::new(format!("{at}[{place}]"), "is there twice"));
        }
        claims.push(Claim { path: path.to_vec(), is_certain: true });
    }
    Ok(claims)
}
