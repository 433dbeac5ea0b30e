//! The signature algorithms that can be accepted, by their JOSE names (RFC 7518 section 3.1; RFC 8037 section 3.1).
use std::fmt;

/// One algorithm of one JWS. There is no `none`, and none can be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    /// Ed25519 only; Ed448 is not there. RFC 9864's name for it, `Ed25519`, is read as the same: names are compared as what
    /// they mean, and a header with one fits a key with the other.
    EdDsa,
}

/// RFC 9864 section 2.2: EdDSA with a key of Ed25519.
const ED25519: &str = "Ed25519";

/// The kind of key that an algorithm needs. Keys of one family never verify for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Hmac,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    pub const ALL: &'static [Algorithm] = &[
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::EdDsa,
    ];

    /// The value of the header's `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Case matters (RFC 7515 section 4.1.1).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == ED25519 {
            return Some(Algorithm::EdDsa);
        }
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    pub const fn family(self) -> Family {
        match self {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => Family::Hmac,
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => Family::Rsa,
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => Family::Rsa,
            Algorithm::Es256 => Family::P256,
            Algorithm::Es384 => Family::P384,
            Algorithm::Es512 => Family::P521,
            Algorithm::EdDsa => Family::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_leads_back_to_its_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(*algorithm));
        }
        assert_eq!(Algorithm::ALL.len(), 13);
        assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDsa));
    }

    #[test]
    fn knows_no_other_name_and_no_other_case() {
        for name in [
            "none",
            "None",
            "NONE",
            "",
            "hs256",
            "EDDSA",
            "ed25519",
            "ED25519",
            "Ed25519ph",
            "Ed448",
            "ES521",
            "es512",
            "ES256K",
            "RS1",
            " RS256",
        ] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }
}
