//! The setups to compare: Envoys with different filters, and the loads on each.
use std::net::SocketAddr;
use std::path::PathBuf;

use mint::Alg;
use serde_json::{Value, json};

use crate::filters::{AUTHORIZER, Http, cluster, dynamic_module, ext_authz, jwt_authn, lua, wasm, with_claims};
use crate::sessions;
use crate::tokens::{AUDIENCE, ISSUER, Keys, ORIGIN, Tokens};

/// The filter chain of one Envoy.
pub struct Setup {
    /// Also the name of its files.
    pub name: String,
    pub title: &'static str,
    pub filters: Vec<Value>,
    pub clusters: Vec<Value>,
    pub environment: Vec<(String, String)>,
    pub module: Option<PathBuf>,
    pub workers: usize,
    pub loads: Vec<Tokens>,
}

/// The host of Portcullis inside Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Wasm,
    Native,
}

/// The parts of all setups.
pub struct Parts<'k> {
    pub keys: &'k Keys,
    /// The server that ext_authz and Lua ask.
    pub authorizer: SocketAddr,
    /// `portcullis serve`.
    pub service: SocketAddr,
    pub secret: String,
}

const UNIQUE: Tokens = Tokens::Unique(Alg::RS256);
/// The claims that go into headers, with those headers.
const FORWARDED: [(&str, &str); 2] = [("sub", "x-user-id"), ("scope", "x-user-scope")];
pub const SERVICE: &str = "session_service";
pub const SECRET: &str = "PORTCULLIS_SECRET";
/// As in envoy/envoy.yaml.
pub const SERVICE_IDLE: Option<&str> = Some("30s");
const SHARED_KEY: &str = "KEY_SHARED";
const CLIENT_SECRET: &str = "CLIENT_SECRET";

/// The first is the reference for all others.
pub fn all(parts: &Parts<'_>) -> Vec<Setup> {
    let repeated_and_unique = || vec![Tokens::Repeated, UNIQUE];
    let native = |name, title, filters, loads| {
        let clusters = vec![cluster(AUTHORIZER, parts.authorizer, None, Http::One)];
        Setup { clusters, ..bare(name, title, filters, loads) }
    };
    let mut setups = vec![
        native("none", "no filter", vec![], vec![Tokens::Repeated, UNIQUE, Tokens::Active]),
        noop(),
        native(
            "jwt_authn",
            "jwt_authn",
            vec![jwt_authn(&parts.keys.jwks(), false)],
            vec![Tokens::Repeated, UNIQUE, Tokens::Unique(Alg::ES256), Tokens::Unique(Alg::EdDSA)],
        ),
        native(
            "jwt_authn-cached",
            "jwt_authn, token cache",
            vec![jwt_authn(&parts.keys.jwks(), true)],
            repeated_and_unique(),
        ),
        native(
            "jwt_authn-claims",
            "jwt_authn, token cache, 2 claims",
            vec![with_claims(jwt_authn(&parts.keys.jwks(), true), &FORWARDED)],
            vec![Tokens::Repeated],
        ),
        native("ext_authz", "ext_authz, HTTP", vec![ext_authz()], repeated_and_unique()),
        native("lua", "Lua httpCall", vec![lua()], repeated_and_unique()),
        native(
            "jwt_authn-ext_authz",
            "jwt_authn + ext_authz",
            vec![jwt_authn(&parts.keys.jwks(), false), ext_authz()],
            repeated_and_unique(),
        ),
        native(
            "jwt_authn-cached-ext_authz",
            "jwt_authn, token cache + ext_authz",
            vec![jwt_authn(&parts.keys.jwks(), true), ext_authz()],
            repeated_and_unique(),
        ),
    ];
    let claims = FORWARDED.map(|(claim, header)| json!({ "claim": claim, "header": header }));
    let forward = json!({ "claims": claims });
    let ask = |more: Value| with(json!({ "revocation": revocation(), "forward": forward }), &more);
    let cold = |name, title, more: &Value, alg| parts.portcullis(name, title, more, Tokens::Unique(alg));
    let never_asks = json!({ "forward": forward });
    // The feed: no token of these loads is revoked, so none is asked about.
    let feed = ask(json!({ "revocation": with(revocation(), &json!({ "feed": { "lag": "1s" } })) }));
    let module = |name, title, more: &Value, load| parts.on(Host::Native, name, title, more, load);
    setups.extend([
        module("native-warm", "Portcullis native, warm", &ask(json!({})), Tokens::Repeated),
        module(
            "native-warm-unforwarded",
            "Portcullis native, warm, no claims forwarded",
            &json!({ "revocation": revocation() }),
            Tokens::Repeated,
        ),
        module("native-rs256", "Portcullis native, cold RS256, revocation off", &never_asks, UNIQUE),
        module(
            "native-es256",
            "Portcullis native, cold ES256, revocation off",
            &never_asks,
            Tokens::Unique(Alg::ES256),
        ),
        module("native-warm-feed", "Portcullis native, warm, feed", &feed, Tokens::Repeated),
        module("native-rs256-feed", "Portcullis native, cold RS256, feed", &feed, UNIQUE),
        module("native-rs256-asked", "Portcullis native, cold RS256, revocation", &ask(json!({})), UNIQUE),
        parts.portcullis("warm", "Portcullis, warm", &ask(json!({})), Tokens::Repeated),
        parts.portcullis(
            "warm-unforwarded",
            "Portcullis, warm, no claims forwarded",
            &json!({ "revocation": revocation() }),
            Tokens::Repeated,
        ),
        parts.portcullis("warm-unasked", "Portcullis, warm, revocation off", &never_asks, Tokens::Repeated),
        cold("cold-rs256", "Portcullis, cold RS256, revocation off", &never_asks, Alg::RS256),
        cold("cold-es256", "Portcullis, cold ES256, revocation off", &never_asks, Alg::ES256),
        cold("cold-eddsa", "Portcullis, cold EdDSA, revocation off", &never_asks, Alg::EdDSA),
        parts.portcullis("warm-feed", "Portcullis, warm, feed", &feed, Tokens::Repeated),
        cold("cold-rs256-feed", "Portcullis, cold RS256, feed", &feed, Alg::RS256),
        cold("cold-rs256-asked", "Portcullis, cold RS256, revocation", &ask(json!({})), Alg::RS256),
        parts.portcullis("active", "Portcullis, sessions in use", &ask(json!({})), Tokens::Active),
        parts.portcullis(
            "active-behind",
            "Portcullis, sessions in use, refresh_ahead: false",
            &ask(json!({ "revocation": with(revocation(), &json!({ "refresh_ahead": false })) })),
            Tokens::Active,
        ),
        // All signatures are cached. By the time a token comes again its verdict is stale: no verdict is shared, and
        // each counts for the shortest allowed time. A few tokens do not fit into the cache (sets of four ways), so the
        // signature is a cheap one: HS256.
        cold("asked", "Portcullis, cached signature, each request asks", &ask(asks_each_time()), Alg::HS256),
        Setup {
            clusters: vec![cluster(SERVICE, parts.service, SERVICE_IDLE, Http::Two)],
            ..cold(
                "asked-http2",
                "Portcullis, cached signature, each request asks, HTTP/2",
                &ask(asks_each_time()),
                Alg::HS256,
            )
        },
        parts.opaque("opaque-warm", "Portcullis, opaque tokens", &forward, Tokens::Opaque),
        parts.opaque("opaque-cold", "Portcullis, opaque tokens, each introspected", &forward, Tokens::UniqueOpaque),
    ]);
    setups
}

/// DPoP, sightings, bindings and answers for browsers, each on, beside the same rule with them off. They are measured only if they are asked for.
pub fn features(parts: &Parts<'_>) -> Vec<Setup> {
    let claims = FORWARDED.map(|(claim, header)| json!({ "claim": claim, "header": header }));
    let base = json!({ "revocation": revocation(), "forward": { "claims": claims } });
    let ruled = |rule: Value| {
        let rule =
            with(json!({ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }), &rule);
        with(base.clone(), &json!({ "rules": [rule] }))
    };
    let proofs = json!({ "dpop": { "origins": [ORIGIN], "algorithms": ["ES256"], "remembered_proofs": 524_288 } });
    let sightings = json!({ "sightings": { "again_after": "1s" } });
    let binding = json!({ "binding": {
        "address": { "mode": "enforce", "claim": "ip" }, "user_agent": { "mode": "enforce", "claim": "ua" },
    } });
    let browser = json!({ "browser": {
        "strict_transport_security": { "max_age": "365d" },
        "content_security_policy": "default-src 'self'; script-src 'nonce-{nonce}'", "nonce_header": "x-csp-nonce",
        "content_type_options": true, "referrer_policy": "no-referrer",
    } });
    let mut setups = Vec::new();
    for (host, off, dpop, seen, bound, browsed) in [
        (
            Host::Native,
            ("features-native-off", "Portcullis native, none of them"),
            ("features-native-dpop", "Portcullis native, DPoP proofs"),
            ("features-native-sightings", "Portcullis native, sightings"),
            ("features-native-bindings", "Portcullis native, bindings"),
            ("features-native-browser", "Portcullis native, browser answers"),
        ),
        (
            Host::Wasm,
            ("features-off", "Portcullis, none of them"),
            ("features-dpop", "Portcullis, DPoP proofs"),
            ("features-sightings", "Portcullis, sightings"),
            ("features-bindings", "Portcullis, bindings"),
            ("features-browser", "Portcullis, browser answers"),
        ),
    ] {
        for ((name, title), more, load) in [
            (off, ruled(json!({})), Tokens::OfClient),
            (dpop, with(ruled(json!({})), &proofs), Tokens::Proven),
            (seen, with(ruled(json!({})), &sightings), Tokens::OfClient),
            (bound, ruled(binding.clone()), Tokens::OfClient),
            (browsed, ruled(browser.clone()), Tokens::OfClient),
        ] {
            setups.push(parts.on(host, name, title, &more, load));
        }
    }
    setups
}

/// Space for all signatures and none for verdicts: the part of the configuration for requests that all cause a check.
pub fn asks_each_time() -> Value {
    json!({ "limits": { "cached_tokens": 65536, "cached_token_bytes": 268_435_456, "shared_verdicts": 0 } })
}

/// An Envoy with one worker and no clusters.
pub fn bare(name: &str, title: &'static str, filters: Vec<Value>, loads: Vec<Tokens>) -> Setup {
    Setup {
        name: name.to_owned(),
        title,
        filters,
        clusters: Vec::new(),
        environment: Vec::new(),
        module: None,
        workers: 1,
        loads,
    }
}

/// An Envoy with Portcullis, which may read all of `environment`.
pub fn portcullis(
    host: Host,
    name: &str,
    title: &'static str,
    config: &Value,
    environment: Vec<(String, String)>,
    service: SocketAddr,
    loads: Vec<Tokens>,
) -> Setup {
    let folder = harness::project().join("dist");
    let document = config.to_string();
    let mut environment = environment;
    let (module, filter) = match host {
        Host::Wasm => {
            let module = folder.join("portcullis.wasm");
            let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
            let filter = wasm("portcullis", &module, &document, &names);
            (module, filter)
        }
        Host::Native => {
            let module = folder.join("libportcullis.so");
            environment.push(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".to_owned(), folder.display().to_string()));
            (module, dynamic_module("portcullis", &document))
        }
    };
    Setup {
        clusters: vec![cluster(SERVICE, service, SERVICE_IDLE, Http::One)],
        module: Some(module),
        environment,
        ..bare(name, title, vec![filter], loads)
    }
}

impl Parts<'_> {
    fn portcullis(&self, name: &str, title: &'static str, more: &Value, load: Tokens) -> Setup {
        self.on(Host::Wasm, name, title, more, load)
    }

    fn on(&self, host: Host, name: &str, title: &'static str, more: &Value, load: Tokens) -> Setup {
        let mut keys: Vec<Value> = [Alg::RS256, Alg::ES256, Alg::EdDSA]
            .iter()
            .map(|alg| json!({ "jwk": self.keys.of(*alg).public_jwk().expect("a public key") }))
            .collect();
        keys.push(json!({
            "kid": "HS256", "alg": "HS256", "secret_env": SHARED_KEY, "secret_encoding": "base64url",
        }));
        let config = with(
            json!({
                "issuers": [{
                    "name": "login", "issuer": ISSUER, "audiences": [AUDIENCE],
                    "algorithms": Keys::ALGS.map(Alg::name), "keys": keys,
                }],
                "rules": [{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }],
            }),
            more,
        );
        let shared = self.keys.of(Alg::HS256).secret().unwrap_or_default();
        let environment =
            vec![(SECRET.to_owned(), self.secret.clone()), (SHARED_KEY.to_owned(), mint::to_base64url(shared))];
        portcullis(host, name, title, &config, environment, self.service, vec![load])
    }
}

/// Tokens that are introspected instead of verified: our service's, which checks revocations before it says active.
impl Parts<'_> {
    fn opaque(&self, name: &str, title: &'static str, forward: &Value, load: Tokens) -> Setup {
        let config = json!({
            "issuers": [{
                "name": "own", "issuer": sessions::ISSUER, "audiences": [AUDIENCE],
                "introspection": {
                    "cluster": SERVICE, "path": "/oauth2/introspect", "client_id": sessions::CLIENT,
                    "client_secret_env": CLIENT_SECRET, "freshness": "1s", "timeout": "1s", "format": "portcullis",
                },
            }],
            "forward": forward,
            "rules": [{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }],
        });
        let environment = vec![(CLIENT_SECRET.to_owned(), sessions::CLIENT_SECRET.to_owned())];
        portcullis(Host::Wasm, name, title, &config, environment, self.service, vec![load])
    }
}

fn noop() -> Setup {
    let module = harness::project().join("dist/noop.wasm");
    let filters = vec![wasm("noop", &module, "", &[])];
    Setup { module: Some(module), ..bare("noop", "no-op Wasm, SDK", filters, vec![Tokens::Repeated, UNIQUE]) }
}

pub fn revocation() -> Value {
    // The core that answers also generates the load, so the timeout is the longest allowed one: freshness.
    json!({ "cluster": SERVICE, "secret_env": SECRET, "freshness": "1s", "timeout": "1s" })
}

/// An object with the members of another added.
pub fn with(mut object: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}
