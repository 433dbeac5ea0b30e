//! The configuration compiled: every name resolved, every bound checked, nothing left that could be wrong at a request.
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jose::Algorithm;
use jose::json::Number;
use sha2::{Digest, Sha256};
use wire::check::NamedIssuer;
use wire::{DerivedKeys, Kind, Kinds, Retention, Secret};

use crate::claims::identifiers::Identifiers;
use crate::claims::provider::Preset;
use crate::claims::tenants::{Issuers, Pattern};
use crate::claims::token_kind::TokenKinds;
use crate::config::{self, Access, Audiences, ConfigDuration, Invalid, RevocationMode, Scalar};
use crate::credentials::Credentials;
use crate::engine::{Key, KeySet};
use crate::introspection::{Format, Introspection};
use crate::keys::discovery::Url;
use crate::keys::source::Settings;
use crate::reject::RejectReason;
use crate::request::headers::{HeaderName, HeaderNames};
use crate::request::host::Host;
use crate::request::origin::Origins;
use crate::request::overrides;
use crate::request::route::Router;
use crate::revocation::{KeyCache, retention};
use crate::time::Monotonic;

/// Gives the bytes of an environment variable of the VM.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

#[derive(Debug)]
pub struct Policy {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) by_issuer: Issuers,
    pub(crate) credentials: Credentials,
    pub(crate) router: Router,
    pub(crate) rules: Vec<Rule>,
    pub(crate) revocation: Option<Revocation>,
    pub(crate) faults: Faults,
    /// Every header that any rule may set, and those that override what was matched: cleared on every route.
    pub(crate) clear: HeaderNames,
    limits: config::Limits,
    engine: config::Engine,
    digest: [u8; 32],
}

#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) name: String,
    /// Of a provider with tenants, the pattern as it is written: each token's own `iss` is the issuer.
    pub(crate) issuer: String,
    pub(crate) tenants: Option<Pattern>,
    pub(crate) audiences: Option<Vec<String>>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: KeySet,
    /// Where its keys are fetched from, in the place of `keys`.
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
    /// Who is asked about its opaque tokens.
    pub(crate) introspection: Option<Introspection>,
}

#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub(crate) access: Access,
    /// By issuer index; `None` admits all.
    pub(crate) issuers: Option<Vec<usize>>,
    /// Those of them that are asked about opaque tokens. No token fits two of them.
    pub(crate) introspecting: Vec<usize>,
    pub(crate) scopes: config::Scopes,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) binding: config::Binding,
    pub(crate) revocation: RevocationMode,
    /// A token must have a claim that names each of these.
    pub(crate) revocable_by: Vec<Kind>,
    pub(crate) forward: Forward,
    pub(crate) cors_preflight_passes: bool,
    pub(crate) cookie_origins: Origins,
}

#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) claim: Vec<String>,
    pub(crate) matcher: ClaimMatcher,
}

#[derive(Debug)]
pub(crate) enum ClaimMatcher {
    OneOf(Vec<ClaimValue>),
    ContainsAny(Vec<ClaimValue>),
    Present(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClaimValue {
    Bool(bool),
    Number(Number),
    String(String),
}

#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) claims: Vec<ForwardClaim>,
    pub(crate) payload_header: Option<HeaderName>,
    pub(crate) keep_token: bool,
}

#[derive(Debug)]
pub(crate) struct ForwardClaim {
    pub(crate) claim: Vec<String>,
    pub(crate) header: HeaderName,
    pub(crate) encoding: config::Encoding,
}

/// How the session service is asked.
#[derive(Debug)]
pub struct Revocation {
    pub cluster: String,
    pub authority: String,
    pub timeout: Duration,
    pub freshness: Duration,
    /// A verdict in use is asked for anew from this age on. `None`: only when it is stale, by a request that waits.
    pub(crate) refresh_after: Option<Duration>,
    pub derived: DerivedKeys,
    /// How long the service must keep revocations for each issuer's tokens, in the document's order.
    pub(crate) needs: Vec<Retention>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) memo: KeyCache,
    /// How far ahead of our clock a token may be issued. Seconds.
    pub future_iat_tolerance: u64,
}

#[derive(Debug)]
pub(crate) struct Faults {
    statuses: HashMap<RejectReason, u16>,
    pub(crate) realm: Option<String>,
}

impl Issuer {
    /// A key of a provider with tenants may say for which of them it is.
    pub(crate) fn may_be_signed_by(&self, key: &Key, iss: &str) -> bool {
        match (&self.tenants, key.issuer()) {
            (Some(tenants), Some(of)) => tenants.may_sign(of, iss),
            (None, _) | (_, None) => true,
        }
    }
}

impl Policy {
    /// Reads the document as JSON.
    ///
    /// # Errors
    /// The first thing that is wrong, with the path of its field.
    pub fn from_json(text: &[u8], environment: Environment<'_>) -> Result<Self, Invalid> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let document: config::Document = serde_path_to_error::deserialize(&mut reader).map_err(|error| Invalid {
            field: error.path().to_string().trim_matches('.').to_owned(),
            message: error.into_inner().to_string(),
        })?;
        reader.end().map_err(|error| Invalid::new("", error.to_string()))?;
        Self::compile(&document, environment, Sha256::digest(text).into())
    }

    /// `digest` names this very document: cached answers of another one are not used.
    ///
    /// # Errors
    /// The first thing that is wrong, with the path of its field.
    pub fn compile(
        document: &config::Document,
        environment: Environment<'_>,
        digest: [u8; 32],
    ) -> Result<Self, Invalid> {
        let limits = check_limits(&document.limits)?;
        let (issuers, by_issuer) = compile_issuers(&document.issuers, &limits, environment)?;
        let revocation = document
            .revocation
            .as_ref()
            .map(|revocation| compile_revocation(revocation, &issuers, environment))
            .transpose()?;
        let credentials = Credentials::compile(&document.tokens)
            .map_err(|invalid| invalid.within("tokens"))?
            .removing_parameters(&document.remove_query_parameters)?;
        let default_forward = compile_forward(&document.forward, "forward")?;
        if document.rules.is_empty() {
            return Err(Invalid::new("rules", "at least one rule is needed: a request that matches none is refused"));
        }
        let mut rules = Vec::with_capacity(document.rules.len());
        let mut names = HashSet::new();
        for (place, rule) in document.rules.iter().enumerate() {
            let at = format!("rules[{place}]");
            let asked = revocation.as_ref().map(|revocation| revocation.kinds.as_slice());
            let compiled = compile_rule(rule, place, &at, &issuers, asked, &document.forward)?;
            if !names.insert(compiled.name.clone()) {
                return Err(Invalid::new(format!("{at}.name"), format!("two rules are named `{}`", compiled.name)));
            }
            rules.push(compiled);
        }
        let router = Router::compile(document.rules.iter().map(|rule| &rule.matches))
            .map_err(|(place, invalid)| invalid.within(format!("rules[{place}].match")))?;
        let mut clear = HeaderNames::default();
        for forward in rules.iter().map(|rule| &rule.forward).chain([&default_forward]) {
            for header in forward.claims.iter().map(|claim| &claim.header).chain(&forward.payload_header) {
                clear.insert(header.clone());
            }
        }
        overrides_to_remove(document)?.for_each(|name| clear.insert(name));
        for (place, header) in document.tokens.headers.iter().enumerate() {
            if clear.has_loosely(header.name.as_bytes()) {
                return Err(Invalid::new(
                    format!("tokens.headers[{place}].name"),
                    format!("`{}` is also set by `forward`: the token would be cleared before it is read", header.name),
                ));
            }
        }
        let faults = compile_faults(&document.faults)?;
        Ok(Self {
            issuers,
            by_issuer,
            credentials,
            router,
            rules,
            revocation,
            faults,
            clear,
            limits,
            engine: document.engine,
            digest,
        })
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What the document wants signatures to be verified by.
    pub fn engine(&self) -> config::Engine {
        self.engine
    }

    pub fn limits(&self) -> &config::Limits {
        &self.limits
    }

    pub fn revocation(&self) -> Option<&Revocation> {
        self.revocation.as_ref()
    }

    /// The headers that are cleared on every route.
    pub fn cleared(&self) -> impl Iterator<Item = &str> {
        self.clear.iter().map(HeaderName::as_str)
    }

    /// The place in the document of the issuer that this `iss` names; or that has it as its pattern.
    pub fn issuer_place(&self, iss: &str) -> Option<usize> {
        let is_pattern = || self.issuers.iter().position(|issuer| issuer.issuer == iss);
        self.by_issuer.find(iss).or_else(is_pattern)
    }

    /// The name of the issuer at this place of the document.
    pub fn issuer_name(&self, place: usize) -> Option<&str> {
        self.issuers.get(place).map(|issuer| issuer.name.as_str())
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The issuers about whose tokens some rule asks the service, for it to know them.
    pub fn issuers_asked_about(&self) -> Vec<NamedIssuer> {
        let Some(revocation) = &self.revocation else { return Vec::new() };
        let asks = |place: usize| {
            let mut rules = self.rules.iter().filter(|rule| rule.revocation != RevocationMode::Off);
            rules.any(|rule| {
                !matches!(rule.access, Access::Public | Access::Probe)
                    && rule.issuers.as_ref().is_none_or(|issuers| issuers.contains(&place))
            })
        };
        let issuers = self.issuers.iter().zip(&revocation.needs).enumerate().filter(|(place, _)| asks(*place));
        let mut named = Vec::new();
        for (_, (issuer, needs)) in issuers {
            let kinds = revocation.kinds.iter().copied().filter(|kind| issuer.identifiers.can_name(*kind));
            let kinds = Kinds::of(kinds);
            match issuer.tenants.as_ref().and_then(Pattern::issuers) {
                Some(tenants) => named.extend(tenants.map(|issuer| NamedIssuer { issuer, needs: *needs, kinds })),
                None => named.push(NamedIssuer { issuer: issuer.issuer.clone(), needs: *needs, kinds }),
            }
        }
        named
    }
}

impl Revocation {
    /// Does an answer still count, whose question was sent then? One from the future was not sent on this clock.
    pub fn is_fresh(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.freshness
    }

    /// How long an answer about an issuer, a signing key or a client serves tokens that ask the same: so short that the
    /// verdicts which rest on it lose little of their freshness.
    pub fn shared_answers_serve(&self) -> Duration {
        self.freshness.mul_f64(SHARED_AGE)
    }

    /// How long revocations must be kept for the tokens of the issuer at this place.
    pub(crate) fn needs(&self, place: usize) -> Retention {
        self.needs.get(place).copied().unwrap_or(Retention::LONGEST)
    }

    /// Is it so fresh that nobody need ask anew?
    pub fn is_young(&self, sent: Monotonic, now: Monotonic) -> bool {
        sent <= now && now.since(sent) < self.refresh_after.unwrap_or(self.freshness)
    }
}

impl Faults {
    pub(crate) fn status(&self, reason: RejectReason) -> u16 {
        // Every fault has an entry; 500 could only mean that this file is wrong, and it still refuses.
        self.statuses.get(&reason).copied().unwrap_or(500)
    }
}

/// The part of its freshness after which a verdict that is in use is asked for anew.
const REFRESH_AGE: f64 = 0.6;
const SHARED_AGE: f64 = 0.1;
const ZERO: ConfigDuration = ConfigDuration::from_secs(0);
const MAX_SKEW: ConfigDuration = ConfigDuration::from_secs(300);
const MAX_LIFETIME: ConfigDuration = ConfigDuration::from_secs(366 * 24 * 60 * 60);
const MAX_FUTURE_IAT_TOLERANCE: ConfigDuration = ConfigDuration::from_secs(60);
const MAX_ISSUERS: usize = 256;
const MAX_REQUIRED_HEADER: usize = 16;

/// Those that the document does not keep.
fn overrides_to_remove(document: &config::Document) -> Result<impl Iterator<Item = HeaderName>, Invalid> {
    let mut all: Vec<HeaderName> =
        overrides::ALL.iter().filter_map(|header| HeaderName::of_request(header.name)).collect();
    for (place, kept) in document.keep_override_headers.iter().enumerate() {
        let invalid = |message| Invalid::new(format!("keep_override_headers[{place}]"), message);
        if !document.remove_override_headers {
            return Err(invalid("says nothing: `remove_override_headers` is false, so all of them stay".to_owned()));
        }
        let before = all.len();
        all.retain(|name| !name.matches_loosely(kept.as_bytes()));
        if all.len() == before {
            return Err(invalid(format!("`{kept}` is not removed, or stands here twice: see docs/overrides.md")));
        }
    }
    Ok(all.into_iter().filter(|_| document.remove_override_headers))
}

fn compile_issuers(
    documents: &[config::Issuer],
    limits: &config::Limits,
    environment: Environment<'_>,
) -> Result<(Vec<Issuer>, Issuers), Invalid> {
    if documents.is_empty() || documents.len() > MAX_ISSUERS {
        return Err(Invalid::new("issuers", format!("1 to {MAX_ISSUERS} issuers are needed")));
    }
    let mut issuers: Vec<Issuer> = Vec::with_capacity(documents.len());
    let mut by_issuer = Issuers::default();
    for (place, document) in documents.iter().enumerate() {
        let at = format!("issuers[{place}]");
        let issuer = compile_issuer(document, place, &at, limits, environment)?;
        if issuers.iter().any(|other| other.name == issuer.name) {
            return Err(Invalid::new(format!("{at}.name"), format!("two issuers are named `{}`", issuer.name)));
        }
        by_issuer
            .add(&issuer.issuer, issuer.tenants.as_ref(), place)
            .map_err(|why| Invalid::new(format!("{at}.issuer"), why))?;
        issuers.push(issuer);
    }
    Ok((issuers, by_issuer))
}

fn compile_issuer(
    document: &config::Issuer,
    place: usize,
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
                "name at least one audience, or write `any` to accept tokens that were meant for somebody else",
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
        // EdDSA and Ed25519 are one.
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    let preset = document.provider.map(Preset::of);
    // Then no JWT of this issuer can be verified, and what is for JWTs only is most likely a mistake.
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
            let message = "has no meaning where all tokens are opaque: give `keys` or `jwks` too, or leave it out";
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
        Some(types) => Some(types.iter().map(|name| crate::claims::plain_type(name)).collect()),
    };
    Ok(Issuer {
        name: name_or(document.name.as_deref(), "issuer", place, at)?,
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
        if let Some(place) = words.iter().position(String::is_empty) {
            return Err(Invalid::new(format!("{at}.{field}[{place}]"), "must not be empty"));
        }
        if !words.is_empty() && !accepted.contains(&config::TokenKind::Access) {
            return Err(Invalid::new(format!("{at}.{field}"), "has no meaning: `token_kinds` has no access tokens"));
        }
    }
    let access_claims = match (&document.access_claims, preset) {
        (Some(claims), _) => claims.clone(),
        (None, Some(preset)) => preset.access_claims.iter().map(|name| (*name).to_owned()).collect(),
        (None, None) => Vec::new(),
    };
    Ok(TokenKinds {
        accepted,
        access_types: document.access_types.iter().map(|word| crate::claims::plain_type(word)).collect(),
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

fn compile_jwks(
    document: &config::Jwks,
    at: &str,
    issuer: &str,
    algorithms: &[Algorithm],
) -> Result<Settings, Invalid> {
    if document.cluster.is_empty() {
        return Err(Invalid::new(format!("{at}.cluster"), "must not be empty"));
    }
    let (url, discovery) = match (&document.uri, document.discovery) {
        (Some(uri), false) => (Url::parse(uri).map_err(|why| Invalid::new(format!("{at}.uri"), why))?, None),
        (None, true) => {
            let url = Url::discovery(issuer);
            (url.map_err(|why| Invalid::new(format!("{at}.discovery"), why))?, Some(issuer.to_owned()))
        }
        _ => return Err(Invalid::new(at, "give exactly one of `uri` and `discovery: true`")),
    };
    let hours = |hours: u64| ConfigDuration::from_secs(hours.saturating_mul(3600));
    let seconds = ConfigDuration::from_secs;
    check_range(document.timeout, ConfigDuration::from_millis(100), seconds(30), &format!("{at}.timeout"))?;
    check_range(document.refresh, seconds(10), hours(24), &format!("{at}.refresh"))?;
    let usual = ConfigDuration(document.refresh.0.mul_f64(0.75)).min(seconds(10));
    let min_refresh = document.min_refresh.unwrap_or(usual);
    check_range(min_refresh, seconds(1), document.refresh, &format!("{at}.min_refresh"))?;
    check_range(document.max_stale, document.refresh, hours(7 * 24), &format!("{at}.max_stale"))?;
    check_range(document.cool_down, seconds(1), hours(1), &format!("{at}.cool_down"))?;
    let mut identity = Sha256::new();
    for part in [issuer, &document.cluster, &url.authority, &url.path, if discovery.is_some() { "d" } else { "u" }] {
        identity.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        identity.update(part);
    }
    Ok(Settings {
        identity: identity.finalize().into(),
        cluster: document.cluster.clone(),
        url,
        discovery,
        timeout: document.timeout.0,
        refresh: document.refresh.0,
        min_refresh: min_refresh.0,
        max_stale: document.max_stale.0,
        cool_down: document.cool_down.0,
        symmetric: document.symmetric,
        algorithms: algorithms.to_vec(),
    })
}

fn compile_key(
    key: &config::Key,
    at: &str,
    allowed: &[Algorithm],
    environment: Environment<'_>,
) -> Result<Key, Invalid> {
    let alg = match &key.alg {
        None => None,
        Some(name) => Some(
            Algorithm::from_name(name)
                .ok_or_else(|| Invalid::new(format!("{at}.alg"), format!("`{name}` is not a supported algorithm")))?,
        ),
    };
    let kid = key.kid.clone();
    match (&key.jwk, &key.pem, &key.secret_env) {
        (Some(jwk), None, None) => {
            Key::from_jwk(jwk, kid, alg, allowed).map_err(|error| Invalid::new(format!("{at}.jwk"), error.to_string()))
        }
        (None, Some(pem), None) => {
            Key::from_pem(pem, kid, alg, allowed).map_err(|error| Invalid::new(format!("{at}.pem"), error.to_string()))
        }
        (None, None, Some(variable)) => {
            let field = format!("{at}.secret_env");
            let secret = secret_from(environment, variable, key.secret_encoding, &field)?;
            Key::from_secret(&secret, kid, alg, allowed).map_err(|error| Invalid::new(field, error.to_string()))
        }
        _ => Err(Invalid::new(at, "give exactly one of `jwk`, `pem` and `secret_env`")),
    }
}

pub(crate) fn secret_from(
    environment: Environment<'_>,
    variable: &str,
    encoding: config::SecretEncoding,
    field: &str,
) -> Result<Vec<u8>, Invalid> {
    let value = environment(variable)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Invalid::new(field, format!("the VM's environment has no variable `{variable}`")))?;
    match encoding {
        config::SecretEncoding::Raw => Ok(value),
        config::SecretEncoding::Base64url => jose::base64url::decode(value.trim_ascii())
            .map_err(|_| Invalid::new(field, format!("`{variable}` does not hold base64url without padding"))),
    }
}

fn compile_revocation(
    document: &config::Revocation,
    issuers: &[Issuer],
    environment: Environment<'_>,
) -> Result<Revocation, Invalid> {
    let at = |field: &str| format!("revocation.{field}");
    if document.cluster.is_empty() {
        return Err(Invalid::new(at("cluster"), "must not be empty"));
    }
    let authority = authority_or(document.authority.as_deref(), &document.cluster, &at("authority"))?;
    check_range(document.timeout, ConfigDuration::from_millis(10), ConfigDuration::from_secs(5), &at("timeout"))?;
    check_range(document.freshness, ConfigDuration::from_secs(1), ConfigDuration::from_secs(5), &at("freshness"))?;
    // An answer that took longer than it counts could never be used.
    if document.timeout > document.freshness {
        return Err(Invalid::new(at("timeout"), "must not be longer than `freshness`"));
    }
    let future_iat_tolerance =
        whole_seconds(document.future_iat_tolerance, ZERO, MAX_FUTURE_IAT_TOLERANCE, &at("future_iat_tolerance"))?;
    let secret = secret_from(environment, &document.secret_env, config::SecretEncoding::Raw, &at("secret_env"))?;
    let secret = Secret::new(&secret).map_err(|error| Invalid::new(at("secret_env"), error.to_string()))?;
    let mut kinds = Vec::new();
    for kind in document.kinds.iter().map(|kind| kind_of(*kind)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Err(Invalid::new(at("kinds"), "name at least one kind"));
    }
    Ok(Revocation {
        cluster: document.cluster.clone(),
        authority,
        timeout: document.timeout.0,
        freshness: document.freshness.0,
        refresh_after: document.refresh_ahead.then(|| document.freshness.0.mul_f64(REFRESH_AGE)),
        derived: secret.derive(),
        needs: issuers.iter().map(|issuer| retention::needed(issuer, future_iat_tolerance, &kinds)).collect(),
        kinds,
        memo: KeyCache::default(),
        future_iat_tolerance,
    })
}

/// The `:authority` of a call; by default the cluster's name, or the host in it where Istio has made it. A proxy on the way
/// answers 400 to an authority that is none.
pub(crate) fn authority_or(authority: Option<&str>, cluster: &str, at: &str) -> Result<String, Invalid> {
    let chosen = authority.unwrap_or_else(|| istio_host(cluster).unwrap_or(cluster));
    match (Host::parse(chosen.as_bytes()), authority) {
        (Ok(_), _) => Ok(chosen.to_owned()),
        (Err(rejection), Some(_)) => {
            Err(Invalid::new(at, format!("must be a host name, with or without a port: {}", rejection.cause)))
        }
        (Err(_), None) => Err(Invalid::new(
            at,
            format!(
                "is needed: the cluster's name `{cluster}` is no host name, so write the one that the server goes by"
            ),
        )),
    }
}

/// The host of `direction|port|subset|host`.
fn istio_host(cluster: &str) -> Option<&str> {
    let parts: Vec<&str> = cluster.split('|').collect();
    match parts.as_slice() {
        [_direction, port, _subset, host] if port.parse::<u16>().is_ok() => Some(host),
        _ => None,
    }
}

/// Those of the accepted issuers that are asked about opaque tokens, if no token could be for two of them.
fn introspecting(
    accepted: Option<&[usize]>,
    access: Access,
    at: &str,
    issuers: &[Issuer],
) -> Result<Vec<usize>, Invalid> {
    if matches!(access, Access::Public | Access::Probe) {
        return Ok(Vec::new());
    }
    let mut found: Vec<(usize, &str, &Format)> = Vec::new();
    for (place, issuer) in issuers.iter().enumerate() {
        let Some(format) = issuer.introspection.as_ref().and_then(Introspection::format) else { continue };
        if accepted.is_some_and(|accepted| !accepted.contains(&place)) {
            continue;
        }
        // To ask both would show each server the other's tokens, and the first to say yes would decide.
        if let Some((_, other, _)) = found.iter().find(|(.., other)| other.overlaps(format)) {
            return Err(Invalid::new(
                format!("{at}.issuers"),
                format!(
                    "an opaque token could be for `{other}` or for `{}`: tell their `introspection.format` apart, or name only one of them here",
                    issuer.name
                ),
            ));
        }
        found.push((place, &issuer.name, format));
    }
    Ok(found.into_iter().map(|(place, ..)| place).collect())
}

fn compile_rule(
    document: &config::Rule,
    place: usize,
    at: &str,
    issuers: &[Issuer],
    asked: Option<&[Kind]>,
    default_forward: &config::Forward,
) -> Result<Rule, Invalid> {
    let name = name_or(document.name.as_deref(), "rule", place, at)?;
    let looks_at_no_token = match document.access {
        Access::Public => Some("public"),
        Access::Probe => Some("probe"),
        Access::Optional | Access::Required => None,
    };
    if let Some(word) = looks_at_no_token {
        let needless = [
            ("issuers", document.issuers.is_some()),
            ("scopes", !document.scopes.all.is_empty() || !document.scopes.any.is_empty()),
            ("claims", !document.claims.is_empty()),
            (
                "binding",
                document.binding.certificate.is_some()
                    || document.binding.address.is_some()
                    || document.binding.user_agent.is_some(),
            ),
            ("revocation", document.revocation.is_some()),
            ("revocable_by", !document.revocable_by.is_empty()),
            ("forward", document.forward.is_some()),
        ];
        // A public rule with conditions is most likely meant to be a required one: refuse rather than guess.
        if let Some((field, _)) = needless.iter().find(|(_, is_there)| *is_there) {
            return Err(Invalid::new(
                format!("{at}.{field}"),
                format!("a {word} rule looks at no token, so this has no meaning"),
            ));
        }
    }
    if document.access == Access::Probe && !matches!(document.matches.path, Some(config::PathMatch::Exact(_))) {
        // With less, a typo would have the filter answer a whole API.
        return Err(Invalid::new(
            format!("{at}.match.path"),
            "a probe rule needs an `exact` path: the filter answers all that it matches",
        ));
    }
    let revocation = match (document.revocation, asked.is_some()) {
        (None, true) => RevocationMode::Check,
        (None | Some(RevocationMode::Off), false) => RevocationMode::Off,
        (Some(mode), true) => mode,
        (Some(_), false) => {
            return Err(Invalid::new(format!("{at}.revocation"), "the document has no `revocation` to ask"));
        }
    };
    let accepted = match &document.issuers {
        None => None,
        Some(names) if names.is_empty() => {
            return Err(Invalid::new(format!("{at}.issuers"), "name at least one issuer, or leave the field out"));
        }
        Some(names) => {
            let mut accepted = Vec::new();
            for (i, wanted) in names.iter().enumerate() {
                let index = issuers.iter().position(|issuer| &issuer.name == wanted).ok_or_else(|| {
                    Invalid::new(format!("{at}.issuers[{i}]"), format!("no issuer is named `{wanted}`"))
                })?;
                accepted.push(index);
            }
            Some(accepted)
        }
    };
    for (field, scopes) in [("all", &document.scopes.all), ("any", &document.scopes.any)] {
        for (i, scope) in scopes.iter().enumerate() {
            // RFC 6749 section 3.3; also keeps the challenge's quoted string whole.
            if scope.is_empty() || !scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(Invalid::new(
                    format!("{at}.scopes.{field}[{i}]"),
                    "is not a scope token (RFC 6749 section 3.3)",
                ));
            }
        }
    }
    let mut conditions = Vec::new();
    for (i, condition) in document.claims.iter().enumerate() {
        conditions.push(compile_condition(condition, &format!("{at}.claims[{i}]"))?);
    }
    for (field, binding) in [("address", &document.binding.address), ("user_agent", &document.binding.user_agent)] {
        if let Some(binding) = binding {
            claim_path(&binding.claim, &format!("{at}.binding.{field}.claim"))?;
        }
    }
    let cookie_origins = Origins::compile(&document.cookie_origins).map_err(|invalid| invalid.within(at))?;
    let forward = match &document.forward {
        Some(forward) => compile_forward(forward, &format!("{at}.forward"))?,
        None => compile_forward(default_forward, "forward")?,
    };
    let introspecting = introspecting(accepted.as_deref(), document.access, at, issuers)?;
    let revocable_by = revocable_by(document, revocation, asked, at)?;
    for (place, kind) in revocable_by.iter().enumerate() {
        let mut of_rule = issuers
            .iter()
            .enumerate()
            .filter(|(place, _)| accepted.as_ref().is_none_or(|accepted| accepted.contains(place)));
        if of_rule.all(|(_, issuer)| issuer.identifiers.names(*kind).is_empty()) {
            return Err(Invalid::new(
                format!("{at}.revocable_by[{place}]"),
                format!("no token has a claim for its {kind}: name one in the issuer's `revocation_claims`"),
            ));
        }
    }
    Ok(Rule {
        name,
        access: document.access,
        issuers: accepted,
        introspecting,
        scopes: document.scopes.clone(),
        conditions,
        binding: document.binding.clone(),
        revocation,
        revocable_by,
        forward,
        cors_preflight_passes: document.cors_preflight == config::CorsPreflight::Pass,
        cookie_origins,
    })
}

fn revocable_by(
    document: &config::Rule,
    mode: RevocationMode,
    asked: Option<&[Kind]>,
    at: &str,
) -> Result<Vec<Kind>, Invalid> {
    let mut kinds = Vec::new();
    for (place, kind) in document.revocable_by.iter().map(|kind| kind_of(*kind)).enumerate() {
        let invalid = |message: &str| Err(Invalid::new(format!("{at}.revocable_by[{place}]"), message));
        if !matches!(kind, Kind::Session | Kind::User | Kind::Client) {
            return invalid("use session, user or client: every token can be revoked by the others");
        }
        if mode == RevocationMode::Off {
            return invalid("the rule asks for no revocations");
        }
        if !asked.is_some_and(|asked| asked.contains(&kind)) {
            return invalid("`revocation.kinds` has not this kind");
        }
        if kinds.contains(&kind) {
            return invalid("is there twice");
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

fn kind_of(kind: config::RevocationKind) -> Kind {
    match kind {
        config::RevocationKind::Token => Kind::Token,
        config::RevocationKind::Session => Kind::Session,
        config::RevocationKind::User => Kind::User,
        config::RevocationKind::Client => Kind::Client,
        config::RevocationKind::Key => Kind::SigningKey,
        config::RevocationKind::Issuer => Kind::Issuer,
    }
}

fn compile_condition(document: &config::Condition, at: &str) -> Result<Condition, Invalid> {
    let claim = claim_path(&document.claim, &format!("{at}.claim"))?;
    let wanted = |field: &str, scalars: &[Scalar]| {
        if scalars.is_empty() {
            return Err(Invalid::new(format!("{at}.{field}"), "name at least one value"));
        }
        scalars
            .iter()
            .map(|scalar| {
                ClaimValue::new(scalar).ok_or_else(|| Invalid::new(format!("{at}.{field}"), "is not a finite number"))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let matcher = match document {
        config::Condition {
            equals: Some(value),
            one_of: None,
            contains: None,
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::OneOf(wanted("equals", std::slice::from_ref(value))?),
        config::Condition {
            equals: None,
            one_of: Some(values),
            contains: None,
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::OneOf(wanted("one_of", values)?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: Some(value),
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::ContainsAny(wanted("contains", std::slice::from_ref(value))?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: None,
            contains_any: Some(values),
            present: None,
            ..
        } => ClaimMatcher::ContainsAny(wanted("contains_any", values)?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: None,
            contains_any: None,
            present: Some(is_there),
            ..
        } => ClaimMatcher::Present(*is_there),
        _ => {
            return Err(Invalid::new(
                at,
                "give exactly one of `equals`, `one_of`, `contains`, `contains_any` and `present`",
            ));
        }
    };
    Ok(Condition { claim, matcher })
}

impl ClaimValue {
    fn new(scalar: &Scalar) -> Option<Self> {
        Some(match scalar {
            Scalar::Bool(value) => ClaimValue::Bool(*value),
            Scalar::String(value) => ClaimValue::String(value.clone()),
            Scalar::Number(value) => ClaimValue::Number(if let Some(value) = value.as_u64() {
                Number::Unsigned(value)
            } else if let Some(value) = value.as_i64() {
                Number::Negative(value)
            } else {
                Number::Float(value.as_f64().filter(|value| value.is_finite())?)
            }),
        })
    }
}

fn compile_forward(document: &config::Forward, at: &str) -> Result<Forward, Invalid> {
    let mut claims = Vec::new();
    let mut headers: Vec<HeaderName> = Vec::new();
    for (i, claim) in document.claims.iter().enumerate() {
        let field = format!("{at}.claims[{i}].header");
        let header = HeaderName::parse(&claim.header).map_err(|message| Invalid::new(&field, message))?;
        if headers.iter().any(|other| other.matches_loosely(header.as_bytes())) {
            return Err(Invalid::new(
                field,
                format!("`{}`, or a header that backends take for it, is set twice", claim.header),
            ));
        }
        headers.push(header.clone());
        claims.push(ForwardClaim {
            claim: claim_path(&claim.claim, &format!("{at}.claims[{i}].claim"))?,
            header,
            encoding: claim.encoding,
        });
    }
    let payload_header = document
        .payload_header
        .as_deref()
        .map(|name| HeaderName::parse(name).map_err(|message| Invalid::new(format!("{at}.payload_header"), message)))
        .transpose()?;
    if payload_header
        .as_ref()
        .is_some_and(|header| headers.iter().any(|other| other.matches_loosely(header.as_bytes())))
    {
        return Err(Invalid::new(format!("{at}.payload_header"), "is set by a claim as well"));
    }
    Ok(Forward { claims, payload_header, keep_token: document.token == config::TokenForwarding::Keep })
}

fn compile_faults(document: &config::Faults) -> Result<Faults, Invalid> {
    let mut statuses: HashMap<RejectReason, u16> = RejectReason::ALL
        .iter()
        .map(|&reason| match document.statuses {
            config::Statuses::Distinct => (reason, reason.distinct_status()),
            config::Statuses::Rfc6750 => (reason, reason.rfc6750_status()),
        })
        .collect();
    for (code, &status) in &document.overrides {
        let at = format!("faults.overrides.{code}");
        let reason = RejectReason::ALL
            .iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| Invalid::new(&at, format!("`{code}` is not a fault code")))?;
        if !(400..=599).contains(&status) {
            return Err(Invalid::new(at, format!("{status} is not a status of refusal: use 400 to 599")));
        }
        statuses.insert(*reason, status);
    }
    if let Some(realm) = &document.realm
        && !realm.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    {
        return Err(Invalid::new("faults.realm", "must be printable ASCII without quotes and backslashes"));
    }
    Ok(Faults { statuses, realm: document.realm.clone() })
}

fn check_limits(limits: &config::Limits) -> Result<config::Limits, Invalid> {
    let bounds = [
        ("token_bytes", limits.token_bytes, 256, 65_536),
        ("cached_tokens", limits.cached_tokens, 0, 65_536),
        ("cached_token_bytes", limits.cached_token_bytes, 65_536, 268_435_456),
        ("shared_verdicts", limits.shared_verdicts, 0, 65_536),
        ("waiting_requests", limits.waiting_requests, 1, 16_384),
    ];
    for (field, value, least, most) in bounds {
        if !(least..=most).contains(&value) {
            return Err(Invalid::new(format!("limits.{field}"), format!("{value} is not within {least} to {most}")));
        }
    }
    Ok(limits.clone())
}

fn claim_path(claim: &config::OneOrMany<String>, at: &str) -> Result<Vec<String>, Invalid> {
    let path = claim.as_slice();
    if path.is_empty() || path.iter().any(String::is_empty) {
        return Err(Invalid::new(at, "name a claim"));
    }
    Ok(path.to_vec())
}

fn name_or(name: Option<&str>, what: &str, place: usize, at: &str) -> Result<String, Invalid> {
    match name {
        None => Ok(format!("{what}-{place}")),
        Some(name)
            if !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') =>
        {
            Ok(name.to_owned())
        }
        Some(_) => Err(Invalid::new(
            format!("{at}.name"),
            "use 1 to 64 letters, digits, `-` and `_`: it becomes a metric's label",
        )),
    }
}

/// Claims are compared in whole seconds: a fraction would silently be dropped.
fn whole_seconds(value: ConfigDuration, least: ConfigDuration, most: ConfigDuration, at: &str) -> Result<u64, Invalid> {
    check_range(value, least, most, at)?;
    if value.0.subsec_nanos() != 0 {
        return Err(Invalid::new(at, "must be whole seconds"));
    }
    Ok(value.0.as_secs())
}

pub(crate) fn check_range(
    value: ConfigDuration,
    least: ConfigDuration,
    most: ConfigDuration,
    at: &str,
) -> Result<(), Invalid> {
    if value < least || value > most {
        return Err(Invalid::new(at, format!("must be within {:?} to {:?}", least.0, most.0)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_authority_is_the_clusters_name_or_the_host_in_istios_name_for_it() {
        for (cluster, expected) in [
            ("session_service", "session_service"),
            ("sessions.example:7700", "sessions.example:7700"),
            ("outbound|7700||portcullis.portcullis.svc.cluster.local", "portcullis.portcullis.svc.cluster.local"),
            ("outbound|443|v1|idp.example.com", "idp.example.com"),
            ("outbound|443||[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(authority_or(None, cluster, "at").as_deref(), Ok(expected), "{cluster}");
        }
    }

    #[test]
    fn a_default_that_is_no_authority_is_an_error_that_says_what_to_write() {
        for cluster in
            ["inbound|8080||", "outbound|x||a.example", "a|b", "a b", "user@a.example", "a/b", "outbound|1|2|3|4"]
        {
            let invalid = authority_or(None, cluster, "revocation.authority").unwrap_err();
            assert_eq!(invalid.field, "revocation.authority");
            assert!(invalid.message.contains(cluster) && invalid.message.contains("write"), "{}", invalid.message);
            assert_eq!(authority_or(Some("a.example:80"), cluster, "at").as_deref(), Ok("a.example:80"));
        }
    }

    #[test]
    fn an_authority_that_is_none_is_an_error() {
        for authority in ["", "a|b", "outbound|1||a.example", "a.example:x", "http://a.example", "a_b c"] {
            assert_eq!(authority_or(Some(authority), "cluster", "at").unwrap_err().field, "at", "{authority}");
        }
    }
}
