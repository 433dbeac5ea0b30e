//! The engine that asks the host: the argument and result of Envoy's foreign function `verify_signature` as bytes. The
//! call itself is elsewhere.
//!
//! The host accepts any key type for the algorithm and short keys, so both are checked here before.
use jose::{Algorithm, base64url};

use super::{BadSignature, Engine, Portable};
use crate::engine::{Key, Material};

/// The foreign function's name.
pub const FUNCTION: &str = "verify_signature";

/// Protobuf of `{ result: true }`. Everything else, such as an error text or an empty message, means that it does not
/// verify.
const VERIFIED: [u8; 2] = [0x08, 0x01];

/// The host's verifier for the algorithms that it has, and [`Portable`] for the others and whenever the host does not
/// answer. `F` makes the call: argument in, result out, `None` if the function is absent, blocked or failed.
#[derive(Debug, Clone, Copy)]
pub struct HostEngine<F> {
    call: F,
    /// Whether it has P-521, which BoringSSL has and other libraries or restricted builds may lack.
    es512: bool,
    fallback: Portable,
}

impl<F: Fn(&[u8]) -> Option<Vec<u8>>> HostEngine<F> {
    pub fn new(call: F) -> Self {
        Self { call, es512: true, fallback: Portable }
    }

    /// Whether the host answers correctly for every algorithm that it will be asked about: one valid and one invalid
    /// signature for each. Call this once, at start. If only ES512 fails, the host is not asked about ES512.
    pub fn self_test(&mut self) -> bool {
        for &(alg, members, signature) in KNOWN_SIGNATURES {
            match (self.knows(alg, members, signature), alg) {
                (true, _) => {}
                (false, Algorithm::ES512) => self.es512 = false,
                (false, _) => return false,
            }
        }
        true
    }

    fn knows(&self, alg: Algorithm, members: PublicJwk, signature: &str) -> bool {
        let jwk = members.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        let (Ok(key), Ok(signature)) = (Key::from_jwk(&jwk, None, None, &[alg]), base64url::decode(signature)) else {
            return false;
        };
        let ask = |message: &[u8]| self.ask(&key, alg, message, &signature);
        ask(KNOWN_MESSAGE) == Asked::Answered(true) && ask(b"another message") == Asked::Answered(false)
    }

    fn ask(&self, key: &Key, alg: Algorithm, message: &[u8], signature: &[u8]) -> Asked {
        if alg == Algorithm::ES512 && !self.es512 {
            return Asked::NoAnswer;
        }
        let argument = match Argument::new(key, alg, message, signature) {
            Ok(argument) => argument,
            Err(NotAsked::Refused) => return Asked::Answered(false),
            Err(NotAsked::NotForTheHost) => return Asked::NoAnswer,
        };
        match (self.call)(argument.bytes()) {
            Some(result) => Asked::Answered(result == VERIFIED),
            None => Asked::NoAnswer,
        }
    }
}

impl<F: Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync> Engine for HostEngine<F> {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match self.ask(key, alg, signing_input, signature) {
            Asked::Answered(true) => Ok(()),
            Asked::Answered(false) => Err(BadSignature),
            Asked::NoAnswer => self.fallback.verify(key, alg, signing_input, signature),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Answered(bool),
    NoAnswer,
}

/// The foreign function's argument, a protobuf message.
#[derive(Debug)]
pub struct Argument(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// The signature cannot be valid, or the key is not for `alg`.
    Refused,
    /// The host cannot verify this.
    NotForTheHost,
}

impl Argument {
    /// # Errors
    /// See [`NotAsked`].
    pub fn new(key: &Key, alg: Algorithm, message: &[u8], signature: &[u8]) -> Result<Self, NotAsked> {
        let hash = match alg {
            Algorithm::RS256 | Algorithm::ES256 => "sha256",
            Algorithm::RS384 | Algorithm::ES384 => "sha384",
            Algorithm::RS512 | Algorithm::ES512 => "sha512",
            // The host has no PSS, no EdDSA and no HMAC.
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => return Err(NotAsked::NotForTheHost),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return Err(NotAsked::NotForTheHost),
            Algorithm::EdDSA => return Err(NotAsked::NotForTheHost),
        };
        if !key.verifies(alg) {
            return Err(NotAsked::Refused);
        }
        let spki = key.spki().ok_or(NotAsked::Refused)?;
        let mut der = Der::default();
        let signature = match key.verifying() {
            Material::Rsa(modulus) if signature.len() == modulus.bytes() => signature,
            Material::P256(_) => der.write::<32>(signature, &P256_ORDER).ok_or(NotAsked::Refused)?,
            Material::P384(_) => der.write::<48>(signature, &P384_ORDER).ok_or(NotAsked::Refused)?,
            Material::P521(_) => der.write::<66>(signature, &P521_ORDER).ok_or(NotAsked::Refused)?,
            Material::Rsa(_) | Material::Ed25519(_) | Material::Hmac(_) => return Err(NotAsked::Refused),
        };
        let fields = [hash.as_bytes(), spki, signature, message];
        // A tag and at most five bytes of length before each.
        let room = fields.iter().map(|field| field.len().saturating_add(6)).fold(0, usize::saturating_add);
        let mut argument = Vec::with_capacity(room);
        for (number, field) in (1u8..).zip(fields) {
            // Wire type 2: a length, then as many bytes.
            argument.push((number << 3) | 2);
            let mut length = field.len();
            while length > 0x7f {
                argument.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            argument.push(length as u8);
            argument.extend_from_slice(field);
        }
        Ok(Self(argument))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// SEC 2 sections 2.4.2, 2.5.1 and 2.6.1: the order n of each curve.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
/// 521 bits, of which the first byte has one.
const P521_ORDER: [u8; 66] = [
    0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x51, 0x86, 0x87, 0x83,
    0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09, 0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8, 0x89, 0x9c, 0x47,
    0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09,
];

/// Two tags and lengths, each integer of 66 bytes, and the sequence's own tag and length of two bytes. Integers of P-521
/// have seven unused bits, so that none needs a zero before it.
const MAX_DER: usize = 3 + 2 * (2 + 66);

/// An ECDSA-Sig-Value (RFC 3279 section 2.2.3) in DER.
struct Der {
    bytes: [u8; MAX_DER],
    length: usize,
}

impl Default for Der {
    fn default() -> Self {
        Self { bytes: [0; MAX_DER], length: 0 }
    }
}

impl Der {
    /// From r and s in `LENGTH` bytes each (RFC 7518 section 3.4); `None` for another length, and for an integer that
    /// is zero or not below the order.
    fn write<const LENGTH: usize>(&mut self, signature: &[u8], order: &[u8; LENGTH]) -> Option<&[u8]> {
        let (r, s) = signature.split_first_chunk::<LENGTH>()?;
        let s: &[u8; LENGTH] = s.try_into().ok()?;
        let integers = [r, s].map(|integer| {
            let zeros = integer.iter().take_while(|&&byte| byte == 0).count();
            // DER integers have a sign, and no byte more than they need.
            integer.get(zeros..).filter(|significant| !significant.is_empty() && integer < order).map(|significant| {
                let sign = significant.first().is_some_and(|&first| first > 0x7f);
                (sign, significant)
            })
        });
        let [Some(r), Some(s)] = integers else { return None };
        let length = |(sign, significant): (bool, &[u8])| significant.len().saturating_add(usize::from(sign));
        let content = length(r).saturating_add(length(s)).saturating_add(4);
        self.length = 0;
        self.push(0x30)?;
        // X.690 section 10.1: the long form only from 128 on.
        if content > 0x7f {
            self.push(0x81)?;
        }
        self.push(u8::try_from(content).ok()?)?;
        for integer in [r, s] {
            self.push(0x02)?;
            self.push(u8::try_from(length(integer)).ok()?)?;
            if integer.0 {
                self.push(0)?;
            }
            for &byte in integer.1 {
                self.push(byte)?;
            }
        }
        self.bytes.get(..self.length)
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length = self.length.checked_add(1)?;
        Some(())
    }
}

const KNOWN_MESSAGE: &[u8] = b"portcullis";

/// Members and their values.
type PublicJwk = &'static [(&'static str, &'static str)];

/// The public halves of keys that sign nothing else: those of the tests.
const KNOWN_RSA: PublicJwk = &[
    ("kty", "RSA"),
    ("e", "AQAB"),
    (
        "n",
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
     T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
     dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
     GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    ),
];
const KNOWN_P256: PublicJwk = &[
    ("kty", "EC"),
    ("crv", "P-256"),
    ("x", "HhhTL9R1TALzBB2cdc6zO4P_2BrHzk_ogsyxyYvFiW4"),
    ("y", "pGwxHE4v9A3ZajZT5uRURdMt_khuztdcepDGoYiBwKM"),
];
const KNOWN_P384: PublicJwk = &[
    ("kty", "EC"),
    ("crv", "P-384"),
    ("x", "sBv8Si1_4gleZifMXK-avRU9W1Uf5_baYV2p0b_RAejRkehZAsCjTqo6FuZmiAtz"),
    ("y", "BZ9ljE1qblfAlZ3oAQmw-mtWvWPR1XAak9FTIvImehVSZkHGDNB8kSpt9Yqpk9ib"),
];

const KNOWN_P521: PublicJwk = &[
    ("kty", "EC"),
    ("crv", "P-521"),
    ("x", "AOiFrkAMlnTuyozzH2hkGaMxONtKroogBn1iyU1gC7KkjZiaqV-WFdTlus3AROF5gDBy-PEz4RXSXpbFVuRpvYrT"),
    ("y", "AA4Hrx95yZtax1pJ8SDNfozJldAJKd8NN9lD2BtVowbWyMDu34cyBB8D0HNiWu-B9Z7BZaao9qhtt9KqclNtPJu3"),
];

/// Signatures of [`KNOWN_MESSAGE`], one for each algorithm that the host is asked about.
const KNOWN_SIGNATURES: &[(Algorithm, PublicJwk, &str)] = &[
    (
        Algorithm::RS256,
        KNOWN_RSA,
        "j61170OnbseZcmmWhSMNoRvD7hrax2ytEnHLZiWkKxf-MygPSAqQODf2_BEQBjxL5EJ9lnK3mn0TxOmH3RexIpXabgjP1nMl-0FJ\
     NTyvarg-i1RwJtB9Cwxb41uLTCnHjZV4mO8NNnaFpaT8j_LM4pKCBLXppICNL4MamqSFTK5O4a2IeUHo9xPKPBlzxp6LC8MigZ6C\
     ixoW_Qkmz-4-ekLC6ocBzjmxP7p2_DqZV2iE5SQBEXR0wBzo4POQg4Us5OlSgMC07VdfcUZfPytfmP6BA9R4hTj-dIGAPnx1aK4H\
     inY00bm03nyJphAIFva4_kNbYHG6NockVkW6X5SydQ",
    ),
    (
        Algorithm::RS384,
        KNOWN_RSA,
        "EsMSRH_vnWOZ8-pqflj0u4m5KaTrEdGp_IvXLVeCcMMitQbUKUFCtcW4FOhOGOBZKaRgfnV3edB_QVSE7SY5SqG7a4NBalFb-FZm\
     QFKtKKbQpNUPzLoeHouaAD4zyBgVUEeRgSW0JNxwanZ6uKHAaGbeoLH-7yCIOnrOY4mI7dIKnenFeZjhGDYlkVDlRw3KRa_6lFHX\
     WV8I_Hgu0CHhYmGeNwQ_wLhMFy2lGq5mTHRoCFquWBOrTSBjAARlr9GpYoqc5jd55UEEYkuJ_ZjU-S-PXYZ-xU3yUVXpvuGzOtTu\
     YK10-BCmDSIHGutQHAZkVTD2F2nslvlNCuoxli6aoQ",
    ),
    (
        Algorithm::RS512,
        KNOWN_RSA,
        "NWfl8E_T68Zu-QfefwPW6b-vCnQkphV_SLQbTcH4duVG5U77t8R8TT7glHlpQEJTrweTJMpKhKTizuAAHfuk9ZDLFgu64mLyTafE\
     Y6XpSVlzr6-9U87PO7q2Wfo8NE1i9sNeQD5UFaf2z5wRAC7LI5Euh4zxvBoL-F8u_OjN_UJ0ZEGDBY3Kw06tNMV02RdjwVnbDLZZ\
     8EzZfwMWHHJopMkY8un0hc2Rm2csP0M2Enj7l1mz4dr4hI2nsiCZCgMPrjUM_zrv7DG_rW0NPZnNVXNx-SiY1KPoGpJ7wOP4l5Cd\
     k3-EnLLKn4bUU26ebTcgPUEXNtjjq5zuHxxXIbTTyw",
    ),
    (
        Algorithm::ES256,
        KNOWN_P256,
        "on0nELvRUfC2JDQiYxHf7r-TZ6kFH788SmiO_gD3PfNOUXRdCJhYhDtiaEUEDKr6CcdO3J-aRAdNmntAeydjRg",
    ),
    (
        Algorithm::ES384,
        KNOWN_P384,
        "HGsuuzwxiiLkgB456ZbmY1lfZFeR4g-QWZDk_umImtMmt5Yafa80rqrigPaHFYn80r-EufwEJqmnSOa8a2sa44E-i1OElHSSFslu\
     f9Cs3c0sC8T3tWaSmYnQNcpXXuIh",
    ),
    (
        Algorithm::ES512,
        KNOWN_P521,
        "AaEFSj7VA2E3YeGbjMbdFFFumMYG0b0h3WAz026smf_8jvRa2-DlzGR88sh1skg-4mEVVLStAKaYXt1Y-b5Zkb0gAer_YAwNKTOkMSRx\
     _W6-qFCYpU4umVV2tb-MkjA58LcBC-iSMsbweuw6G9z4T72UHmGNXsBwuOkSI8XRvQzK2fqX",
    ),
];

#[cfg(test)]
pub(super) mod tests;
