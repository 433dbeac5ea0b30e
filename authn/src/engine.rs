//! The engines that check signatures, and the choice of one at start. Reading keys and tokens is for [`jose`].
use jose::Algorithm;

use crate::config;

#[cfg(any(test, feature = "aws-lc"))]
pub mod aws_lc;
pub mod host_call;
mod jwt_simple;
mod material;
mod portable;
pub(crate) mod rsa;

pub use host_call::HostEngine;
pub use jose::BadSignature;
pub use jwt_simple::JwtSimple;
pub use material::Material;
pub use portable::Portable;

/// A key, ready for these engines.
pub type Key = jose::Key<Material>;
pub type KeySet = jose::KeySet<Material>;
/// A published key set, as far as these engines can use it.
pub type ParsedSet = jose::jwks::Parsed<Material>;

/// Checks one signature with one key. Engines differ in speed, never in the answer.
pub trait Engine: Send + Sync {
    /// # Errors
    /// The signature does not match, is not of its algorithm's form, or the key is not for `alg`.
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// The engine of one configuration, and which one it is.
pub struct Chosen {
    pub engine: Box<dyn Engine>,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Host,
    Portable,
}

impl Kind {
    /// In logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::Portable => "portable",
        }
    }
}

/// `engine: host`, and the host's verifier is absent, not allowed, or gives wrong answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("engine: the host has no `{}` that answers rightly; say `auto` or `portable`", host_call::FUNCTION)]
pub struct HostCannotVerify;

/// `call` calls the host's verifier, as [`HostEngine`] says.
///
/// # Errors
/// The document demands the host's engine, and it cannot be used.
pub fn choose<F>(wanted: config::Engine, call: F) -> Result<Chosen, HostCannotVerify>
where
    F: Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let portable = || Chosen { engine: Box::new(Portable), kind: Kind::Portable };
    if wanted == config::Engine::Portable {
        return Ok(portable());
    }
    let mut host = HostEngine::new(call);
    match wanted {
        _ if host.self_test() => Ok(Chosen { engine: Box::new(host), kind: Kind::Host }),
        config::Engine::Host => Err(HostCannotVerify),
        config::Engine::Auto | config::Engine::Portable => Ok(portable()),
    }
}

#[cfg(test)]
mod tests;
