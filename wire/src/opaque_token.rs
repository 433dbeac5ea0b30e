//! The format of the service's opaque tokens, as far as it can be checked without a callout.
//!
//! ```text
//! pcs_ | 86 digits of base62 | 6 digits of base62        pcs_ an access token, pcr_ a refresh token
//!        sid 16, random 32, tag 16    CRC-32 of all before it
//! ```
//! Letters and digits only, so that a double click selects all of it and `pc[sr]_[0-9A-Za-z]{92}` finds it in a text.
//! The checksum detects a mistyped or truncated token; it is not secret, and proves nothing. The random part makes the
//! token unguessable. The tag shows the service that it made the token, before it asks its store.
use std::fmt;

/// The length of every token in bytes.
pub const LENGTH: usize = PREFIX + DIGITS + CHECK;

const PREFIX: usize = 4;
const DIGITS: usize = 86;
const CHECK: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The purpose of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Access,
    Refresh,
}

/// The contents of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpaqueToken {
    pub purpose: Purpose,
    /// The session that it belongs to.
    pub sid: [u8; 16],
    /// From a CSPRNG, new for each token.
    pub random: [u8; 32],
    /// The service's own MAC over the rest.
    pub tag: [u8; 16],
}

/// Has `text` the form of an access token, with a valid checksum? False for a token with another purpose.
///
/// It is cheap, so that a mistyped or made-up token causes no callout.
pub fn is_access_token(text: &[u8]) -> bool {
    digits_of(Purpose::Access, text).is_some()
}

impl Purpose {
    pub fn prefix(self) -> &'static str {
        match self {
            Purpose::Access => "pcs_",
            Purpose::Refresh => "pcr_",
        }
    }
}

impl OpaqueToken {
    /// `None` for any text that [`OpaqueToken::write`] did not write for this purpose: there is one spelling.
    pub fn parse(purpose: Purpose, text: &[u8]) -> Option<Self> {
        let number = from_base62(digits_of(purpose, text)?)?;
        let (sid, rest) = number.split_first_chunk::<16>()?;
        let (random, tag) = rest.split_first_chunk::<32>()?;
        Some(Self { purpose, sid: *sid, random: *random, tag: *tag.first_chunk()? })
    }

    /// The result is secret.
    pub fn write(&self) -> String {
        let mut number = [0; 64];
        for (to, from) in number.iter_mut().zip(self.sid.iter().chain(&self.random).chain(&self.tag)) {
            *to = *from;
        }
        let mut text = self.purpose.prefix().to_owned();
        text.extend(to_base62(number).map(char::from));
        let check = check_digits(text.as_bytes());
        text.extend(check.map(char::from));
        text
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaqueToken").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

fn digits_of(purpose: Purpose, text: &[u8]) -> Option<&[u8; DIGITS]> {
    if text.len() != LENGTH {
        return None;
    }
    let (checked, check) = text.split_last_chunk::<CHECK>()?;
    let digits = checked.strip_prefix(purpose.prefix().as_bytes())?;
    let plain = digits.iter().all(u8::is_ascii_alphanumeric) && *check == check_digits(checked);
    if plain { digits.first_chunk() } else { None }
}

fn to_base62(mut number: [u8; 64]) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for digit in digits.iter_mut().rev() {
        // Divides the whole number by 62; the remainder is the next digit from the right.
        let mut left = 0_u16;
        for byte in &mut number {
            let value = left << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or_default();
            left = value % 62;
        }
        *digit = ALPHABET.get(usize::from(left)).copied().unwrap_or_default();
    }
    digits
}

/// `None` if it is too large for 64 bytes, which none of our tokens is.
fn from_base62(digits: &[u8; DIGITS]) -> Option<[u8; 64]> {
    let mut number = [0; 64];
    for digit in digits {
        let value = ALPHABET.iter().position(|ours| ours == digit)?;
        let mut carry = u16::try_from(value).ok()?;
        for byte in number.iter_mut().rev() {
            let [high, low] = u16::from(*byte).wrapping_mul(62).wrapping_add(carry).to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

fn check_digits(text: &[u8]) -> [u8; CHECK] {
    let mut left = crc32(text);
    let mut digits = [0; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = usize::try_from(left % 62).ok().and_then(|at| ALPHABET.get(at).copied()).unwrap_or_default();
        left /= 62;
    }
    digits
}

/// CRC-32 as in Ethernet and zlib (ISO-HDLC), bit by bit: a table would cost more than it saves for 90 bytes.
fn crc32(text: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(byte: u8) -> OpaqueToken {
        OpaqueToken { purpose: Purpose::Access, sid: [byte; 16], random: [byte ^ 0x5a; 32], tag: [byte; 16] }
    }

    #[test]
    fn crc32_is_the_one_that_everybody_means() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn tokens_are_read_back_as_written_for_their_purpose_only() {
        for byte in [0, 1, 127, 255] {
            for purpose in [Purpose::Access, Purpose::Refresh] {
                let token = OpaqueToken { purpose, ..token(byte) };
                let text = token.write();
                assert_eq!((text.len(), OpaqueToken::parse(purpose, text.as_bytes())), (LENGTH, Some(token)));
                assert_eq!(is_access_token(text.as_bytes()), purpose == Purpose::Access);
            }
        }
        assert_eq!(OpaqueToken::parse(Purpose::Refresh, token(1).write().as_bytes()), None);
    }

    #[test]
    fn every_changed_lost_or_added_character_is_noticed() {
        let text = token(7).write();
        for at in 0..text.len() {
            for new in *b"aZ0_" {
                let mut bad = text.clone().into_bytes();
                if bad[at] != new {
                    bad[at] = new;
                    assert!(!is_access_token(&bad), "{at}");
                }
            }
            let mut short = text.clone().into_bytes();
            short.remove(at);
            assert!(!is_access_token(&short), "{at}");
            let mut long = text.clone().into_bytes();
            long.insert(at, b'0');
            assert!(!is_access_token(&long), "{at}");
        }
        // Two adjacent characters swapped: the most common typing error besides a wrong letter.
        for at in 4..text.len() - 1 {
            let mut bad = text.clone().into_bytes();
            bad.swap(at, at + 1);
            assert!(bad == text.as_bytes() || !is_access_token(&bad), "{at}");
        }
        let access_as_refresh = text.replacen("pcs_", "pcr_", 1);
        assert_eq!(OpaqueToken::parse(Purpose::Refresh, access_as_refresh.as_bytes()), None);
        assert!(!is_access_token(b"") && !is_access_token(b"pcs_"));
    }

    #[test]
    fn a_number_that_is_too_large_is_no_token_though_its_checksum_is_right() {
        let mut text = format!("pcs_{}", "z".repeat(DIGITS));
        let check = check_digits(text.as_bytes());
        text.extend(check.map(char::from));
        assert!(is_access_token(text.as_bytes()));
        assert_eq!(OpaqueToken::parse(Purpose::Access, text.as_bytes()), None);
    }

    // A fixed value, to detect a change of format: it would refuse every token in use.
    #[test]
    fn the_form_is_pinned() {
        let text = token(1).write();
        assert_eq!(
            text,
            "pcs_0ERzuw3N0ZEdSWBdpqSHOxGPjlPL4A4cuIoClIHdapvaGouu7AWFQEVlbJUpCQu2x0Ipb3aUsHKr2QumlLAqrx2M0ssk"
        );
    }

    #[test]
    fn debug_tells_no_secret() {
        assert_eq!(format!("{:?}", token(1)), "OpaqueToken { purpose: Access, .. }");
    }
}
