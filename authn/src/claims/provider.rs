//! What is known of well-known providers' tokens, so that nobody has to find it out. Each has a page in docs/providers with a
//! document and tokens of their real shape, which tests/providers.rs reads.
use jose::Algorithm;

use crate::config::{Provider, TokenKind};

/// What an issuer is set to where its document does not say.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) algorithms: &'static [Algorithm],
    pub(crate) kinds: &'static [TokenKind],
    pub(crate) access_claims: &'static [&'static str],
    /// Paths of claims, as are the next two. Empty: no claim of its tokens names one.
    pub(crate) session: &'static [&'static [&'static str]],
    pub(crate) user: &'static [&'static [&'static str]],
    pub(crate) client: &'static [&'static [&'static str]],
    /// Offline sessions have the ids of others.
    pub(crate) offline_apart: bool,
}

const ACCESS: &[TokenKind] = &[TokenKind::Access];
const ID: &[TokenKind] = &[TokenKind::Id];
const RS256: &[Algorithm] = &[Algorithm::RS256];

impl Preset {
    pub(crate) const fn of(provider: Provider) -> Self {
        match provider {
            Provider::Keycloak => Self {
                algorithms: RS256,
                kinds: ACCESS,
                // All of its kinds say what they are.
                access_claims: &["typ"],
                session: &[&["sid"], &["session_state"]],
                user: &[&["sub"]],
                client: &[&["client_id"], &["azp"]],
                offline_apart: true,
            },
            Provider::Entra => Self {
                algorithms: RS256,
                kinds: ACCESS,
                access_claims: &["azp", "appid"],
                session: &[&["sid"]],
                // `sub` is another one for each application.
                user: &[&["oid"]],
                client: &[&["azp"], &["appid"]],
                offline_apart: false,
            },
            Provider::Okta => Self {
                algorithms: RS256,
                kinds: ACCESS,
                access_claims: &["cid"],
                session: &[],
                // In access tokens `sub` is the login, which may change; in ID tokens it is what `uid` is there.
                user: &[&["uid"], &["sub"]],
                // Introspection has it under the usual name.
                client: &[&["cid"], &["client_id"]],
                offline_apart: false,
            },
            Provider::Auth0 => Self {
                algorithms: RS256,
                kinds: ACCESS,
                access_claims: &["azp", "client_id"],
                session: &[&["sid"]],
                user: &[&["sub"]],
                client: &[&["client_id"], &["azp"]],
                offline_apart: false,
            },
            Provider::Cognito => Self {
                algorithms: RS256,
                kinds: ACCESS,
                access_claims: &["token_use"],
                session: &[&["origin_jti"]],
                user: &[&["sub"]],
                client: &[&["client_id"]],
                offline_apart: false,
            },
            Provider::Google => Self {
                algorithms: RS256,
                // Its access tokens are opaque.
                kinds: ID,
                access_claims: &[],
                session: &[],
                user: &[&["sub"]],
                client: &[&["azp"]],
                offline_apart: false,
            },
            Provider::Firebase => Self {
                algorithms: RS256,
                kinds: ID,
                access_claims: &[],
                session: &[],
                user: &[&["sub"]],
                client: &[],
                offline_apart: false,
            },
            Provider::Kubernetes => Self {
                algorithms: RS256,
                kinds: ACCESS,
                access_claims: &["kubernetes.io"],
                session: &[&["kubernetes.io", "pod", "uid"]],
                user: &[&["sub"]],
                client: &[],
                offline_apart: false,
            },
        }
    }
}
