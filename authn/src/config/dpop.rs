//! Proof of possession by DPoP (RFC 9449): which proofs count, and what a rule asks of them.
use serde::Deserialize;

use super::ConfigDuration;

document! {
    /// Proof of possession by DPoP (RFC 9449): a token with `cnf.jkt` counts only with the scheme `DPoP` and a fresh proof
    /// of its key. docs/dpop.md explains it.
    pub struct Dpop {
        /// Scheme and authority of requests as clients see them, `https://api.example`, 1 to 16. `htu` of a proof must be
        /// one of these and the request's path. Of several, the one with the request's host counts; each has another host.
        pub origins: Vec<String>,
        /// The algorithms of proofs: asymmetric ones.
        #[serde(default = "default_algorithms")]
        pub algorithms: Vec<String>,
        /// How old `iat` of a proof may be; 1s to 10m, whole seconds.
        #[serde(default = "default_max_age")]
        pub max_age: ConfigDuration,
        /// How far `iat` may lie in the future, for clients whose clocks run ahead; 0s to 60s, whole seconds.
        #[serde(default = "default_future_iat_tolerance")]
        pub future_iat_tolerance: ConfigDuration,
        /// Ask for nonces (RFC 9449 section 9), so that no proof can be made in advance. Default: none.
        pub nonce: Option<DpopNonce>,
        /// The environment variable of the VM that holds the secret behind nonces and the memory of used proofs (32 bytes or
        /// more). Default: the secret of `revocation`; required without it. All proxies of a service need the same.
        pub secret_env: Option<String>,
        /// The used proofs that each Envoy process remembers, for `max_age` and 30 seconds more; 1024 to 524288. Beyond about
        /// three times this number, proofs are refused with 503.
        #[serde(default = "default_remembered_proofs")]
        pub remembered_proofs: usize,
    }

    /// Nonces in proofs.
    pub struct DpopNonce {
        /// How long a nonce counts; 10s to 1h, whole seconds. A new one comes with an answer in its last third.
        #[serde(default = "default_nonce_lifetime")]
        pub lifetime: ConfigDuration,
    }

    /// What a rule asks of DPoP. It needs `dpop` in the document.
    #[derive(Default)]
    pub struct RuleDpop {
        /// Refuse tokens that are not bound to a key. Default false: a bearer token passes without a proof.
        #[serde(default)]
        pub required: bool,
        /// Where the rule's used proofs are remembered, so that none passes twice.
        #[serde(default)]
        pub replay: DpopReplay,
        /// Forward the header `DPoP` to the upstream. Default false: it is removed. A token endpoint behind a public rule
        /// needs it.
        #[serde(default)]
        pub forward_proof: bool,
    }
}

choice! {
    /// Where used proofs are remembered.
    #[derive(Default)]
    pub enum DpopReplay {
        /// In the Envoy process, for all of its workers.
        #[default]
        Process,
        /// Also in the session service, for all proxies. Each request waits for its answer, which comes with the check of
        /// revocations if one is due. Needs `revocation`.
        Fleet,
    }
}

fn default_algorithms() -> Vec<String> {
    ["ES256", "ES384", "EdDSA", "PS256", "RS256"].map(str::to_owned).into()
}

fn default_max_age() -> ConfigDuration {
    ConfigDuration::from_secs(60)
}

fn default_future_iat_tolerance() -> ConfigDuration {
    ConfigDuration::from_secs(5)
}

fn default_nonce_lifetime() -> ConfigDuration {
    ConfigDuration::from_secs(300)
}

fn default_remembered_proofs() -> usize {
    65_536
}
