//! Issuers of the document, compiled: whose tokens are accepted, and what these must contain.
use jose::{Algorithm, plain_type};

use super::key::{compile_jwks, compile_key};
use crate::claims::identifiers::Identifiers;
use crate::claims::provider::Preset;
use crate::claims::tenants::{Issuers, Pattern};
use crate::claims::token_kind::TokenKinds;
use crate::config;
use crate::config::{Audiences, ConfigDuration, Environment, Invalid, name_or, whole_seconds};
use crate::engine::{Key, KeySet};
use crate::introspection::Introspection;
use crate::keys::source::Settings;
use crate::revocation::retention::Lifetimes;

#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) name: String,
    /// For a provider with tenants, the pattern as written: each token's own `iss` is the issuer.
    pub(crate) issuer: String,
    pub(crate) tenants: Option<Pattern>,
    pub(crate) audiences: Option<Vec<String>>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: KeySet,
    /// The source of fetched keys, instead of `keys`.
    pub(crate) published: Option<Settings>,
    pub(crate) skew: u64,
    pub(crate) max_lifetime: u64,
    pub(crate) max_session: u64,
    /// Lower case, without `application/`. `None`: JWT, at+jwt or absent.
    pub(crate) types: Option<Vec<String>>,
    pub(crate) kinds: TokenKinds,
    pub(crate) identifiers: Identifiers,
    pub(crate) padded: bool,
    pub(crate) required_header: Vec<(String, Vec<String>)>,
    pub(crate) required_claims: Vec<String>,
    /// The server for its opaque tokens.
    pub(crate) introspection: Option<Introspection>,
}

impl Issuer {
    pub(super) fn lifetimes(&self) -> Lifetimes {
        Lifetimes { skew: self.skew, max_lifetime: self.max_lifetime, max_session: self.max_session }
    }

    /// A key of a provider with tenants may be restricted to some of them.
    pub(crate) fn may_be_signed_by(&self, key: &Key, iss: &str) -> bool {
        match (&self.tenants, key.issuer()) {
            (Some(tenants), Some(of)) => tenants.may_sign(of, iss),
            (None, _) | (_, None) => true,
        }
    }
}

const ZERO: ConfigDuration = ConfigDuration::from_secs(0);

const MAX_SKEW: ConfigDuration = ConfigDuration::from_secs(300);

const MAX_LIFETIME: ConfigDuration = ConfigDuration::from_secs(366 * 24 * 60 * 60);

const MAX_ISSUERS: usize = 256;

const MAX_REQUIRED_HEADER: usize = 16;

pub(super) fn compile_issuers(
    documents: &[config::Issuer],
    limits: &config::Limits,
    environment: Environment<'_>,
) -> Result<(Vec<Issuer>, Issuers), Invalid> {
    if documents.is_empty() || documents.len() > MAX_ISSUERS {
        return Err(Invalid::new("issuers", format!("1 to {MAX_ISSUERS} issuers are needed")));
    }
    let mut issuers: Vec<Issuer> = Vec::with_capacity(documents.len());
    let mut by_issuer = Issuers::default();
    for (index, document) in documents.iter().enumerate() {
        let at = format!("issuers[{index}]");
        let issuer = compile_issuer(document, index, &at, limits, environment)?;
        if issuers.iter().any(|other| other.name == issuer.name) {
            return Err(Invalid::new(format!("{at}.name"), format!("two issuers are named `{}`", issuer.name)));
        }
        by_issuer
            .add(&issuer.issuer, issuer.tenants.as_ref(), index)
            .map_err(|why| Invalid::new(format!("{at}.issuer"), why))?;
        issuers.push(issuer);
    }
    Ok((issuers, by_issuer))
}

fn compile_issuer(
    document: &config::Issuer,
    index: usize,
    at: &str,
    limits: &config::Limits,
    environment: Environment<'_>,
) -> Result<Issuer, Invalid> {
    if document.issuer.is_empty() {
        return Err(Invalid::new(format!("{at}.issuer"), "must not be empty"));
    }
    let tenants = Pattern::compile(document, at)?;
    let audiences = match &document.audiences {
        Audiences::Any(_) => None,
        Audiences::These(these) if these.is_empty() => {
            return Err(Invalid::new(
                format!("{at}.audiences"),
                "name at least one audience, or write `any` to accept tokens for other audiences",
            ));
        }
        Audiences::These(these) => Some(these.clone()),
    };
    let mut algorithms = Vec::new();
    for (i, name) in document.algorithms.iter().enumerate() {
        let field = format!("{at}.algorithms[{i}]");
        let algorithm = Algorithm::from_name(name).ok_or_else(|| {
            let known = Algorithm::ALL.map(Algorithm::name);
            Invalid::new(&field, format!("`{name}` is not supported; use one of {}", known.join(", ")))
        })?;
        if document.algorithms.iter().take(i).any(|earlier| earlier == name) {
            return Err(Invalid::new(field, format!("`{name}` is listed twice")));
        }
        // EdDSA and Ed25519 are the same.
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    let preset = document.provider.map(Preset::of);
    // Then no JWT of this issuer can be verified, so fields for JWTs are probably a mistake.
    let asks_about_opaque_only =
        document.introspection.as_ref().is_some_and(|asked| asked.of == config::IntrospectedTokens::Opaque);
    let is_opaque_only = asks_about_opaque_only && document.keys.is_empty() && document.jwks.is_none();
    if is_opaque_only {
        let needless = [
            ("algorithms", !algorithms.is_empty()),
            ("types", document.types.is_some()),
            ("padded", document.padded),
            ("required_header", !document.required_header.is_empty()),
        ];
        if let Some((field, _)) = needless.iter().find(|(_, is_there)| *is_there) {
            let message = "has no effect if all tokens are opaque: give `keys` or `jwks` too, or leave it out";
            return Err(Invalid::new(format!("{at}.{field}"), message));
        }
    } else if let (true, Some(preset)) = (algorithms.is_empty(), &preset) {
        algorithms.extend(preset.algorithms);
    } else if algorithms.is_empty() {
        return Err(Invalid::new(format!("{at}.algorithms"), "name at least one algorithm"));
    }
    let introspection = document
        .introspection
        .as_ref()
        .map(|introspection| Introspection::compile(introspection, &format!("{at}.introspection"), limits, environment))
        .transpose()?;
    let mut keys = Vec::new();
    for (i, key) in document.keys.iter().enumerate() {
        keys.push(compile_key(key, &format!("{at}.keys[{i}]"), &algorithms, environment)?);
    }
    let published = match &document.jwks {
        Some(_) if !keys.is_empty() => {
            return Err(Invalid::new(format!("{at}.jwks"), "give either `keys` or `jwks`"));
        }
        Some(jwks) => Some(compile_jwks(jwks, &format!("{at}.jwks"), &document.issuer, &algorithms)?),
        None if keys.is_empty() && !is_opaque_only => {
            return Err(Invalid::new(format!("{at}.keys"), "at least one key is needed, or `jwks`"));
        }
        None => None,
    };
    let keys = KeySet::new(keys).map_err(|error| Invalid::new(format!("{at}.keys"), error.to_string()))?;
    let skew = whole_seconds(document.skew, ZERO, MAX_SKEW, &format!("{at}.skew"))?;
    let second = ConfigDuration::from_secs(1);
    let max_lifetime = whole_seconds(document.max_lifetime, second, MAX_LIFETIME, &format!("{at}.max_lifetime"))?;
    let max_session = whole_seconds(document.max_session, second, MAX_LIFETIME, &format!("{at}.max_session"))?;
    let types = match &document.types {
        None => None,
        Some(types) if types.is_empty() => {
            return Err(Invalid::new(format!("{at}.types"), "name at least one type, or leave the field out"));
        }
        Some(types) => Some(types.iter().map(|name| plain_type(name)).collect()),
    };
    Ok(Issuer {
        name: name_or(document.name.as_deref(), "issuer", index, at)?,
        issuer: document.issuer.clone(),
        tenants,
        audiences,
        algorithms,
        keys,
        published,
        skew,
        max_lifetime,
        max_session,
        types,
        kinds: token_kinds(document, preset.as_ref(), at)?,
        identifiers: Identifiers::compile(document, preset.as_ref(), at)?,
        padded: document.padded,
        required_header: required_header(document, at)?,
        required_claims: document.required_claims.clone(),
        introspection,
    })
}

fn token_kinds(document: &config::Issuer, preset: Option<&Preset>, at: &str) -> Result<TokenKinds, Invalid> {
    let accepted = match (&document.token_kinds, preset) {
        (Some(kinds), _) => kinds.clone(),
        (None, Some(preset)) => preset.kinds.to_vec(),
        (None, None) => vec![config::TokenKind::Access],
    };
    if accepted.is_empty() {
        return Err(Invalid::new(format!("{at}.token_kinds"), "name at least one kind, or leave the field out"));
    }
    let written = document.access_claims.as_deref().unwrap_or_default();
    for (field, words) in [("access_types", document.access_types.as_slice()), ("access_claims", written)] {
        if let Some(index) = words.iter().position(String::is_empty) {
            return Err(Invalid::new(format!("{at}.{field}[{index}]"), "must not be empty"));
        }
        if !words.is_empty() && !accepted.contains(&config::TokenKind::Access) {
            return Err(Invalid::new(format!("{at}.{field}"), "has no effect: `token_kinds` has no access tokens"));
        }
    }
    let access_claims = match (&document.access_claims, preset) {
        (Some(claims), _) => claims.clone(),
        (None, Some(preset)) => preset.access_claims.iter().map(|name| (*name).to_owned()).collect(),
        (None, None) => Vec::new(),
    };
    Ok(TokenKinds {
        accepted,
        access_types: document.access_types.iter().map(|word| plain_type(word)).collect(),
        access_claims,
    })
}

fn required_header(document: &config::Issuer, at: &str) -> Result<Vec<(String, Vec<String>)>, Invalid> {
    if document.required_header.len() > MAX_REQUIRED_HEADER {
        return Err(Invalid::new(
            format!("{at}.required_header"),
            format!("has more than {MAX_REQUIRED_HEADER} members"),
        ));
    }
    let compile = |(name, values): (&String, &config::OneOrMany<String>)| {
        let field = format!("{at}.required_header.{name}");
        let invalid = |message: &str| Err(Invalid::new(&field, message));
        match name.as_str() {
            "" => return invalid("must not be empty"),
            "alg" => return invalid("is what `algorithms` is for"),
            "typ" => return invalid("is what `types` is for"),
            _ if values.as_slice().is_empty() => return invalid("name at least one value"),
            _ => {}
        }
        Ok((name.clone(), values.as_slice().to_vec()))
    };
    document.required_header.iter().map(compile).collect()
}
