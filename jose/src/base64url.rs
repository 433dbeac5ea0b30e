//! Base64url as JOSE writes it (RFC 7515 section 2): no padding, no white space, and one spelling for each value.
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Trailing bits must be zero: otherwise one signature has several spellings, and a cache or a list of ended tokens that
/// is keyed by the text could be evaded.
const STRICT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// As [`STRICT`], with the padding that RFC 4648 section 3.2 has and JOSE leaves out.
const PADDED: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(false),
);

/// The text is not canonical base64url: a byte outside the alphabet, padding, an impossible length or trailing bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not canonical base64url without padding")]
pub struct NotBase64Url;

/// # Errors
/// Anything but the one canonical spelling.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, NotBase64Url> {
    STRICT.decode(text).map_err(|_| NotBase64Url)
}

/// # Errors
/// Anything but the one canonical spelling with padding.
pub fn decode_padded(text: impl AsRef<[u8]>) -> Result<Vec<u8>, NotBase64Url> {
    PADDED.decode(text).map_err(|_| NotBase64Url)
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    STRICT.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_padding_there_is_one_spelling_too() {
        for text in ["", "Zm8=", "Zg==", "Zm9v"] {
            assert!(decode_padded(text).is_ok(), "{text}");
        }
        for text in
            ["Zm8", "Zg", "Zg=", "Zg===", "Zm9v=", "Zm9v====", "=", "Zh==", "Zm9=", "Z=g=", "Zg==Zg==", "Zm+=", "Zm8= "]
        {
            assert!(decode_padded(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decodes_what_it_encodes_at_every_length() {
        for length in 0..100_u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(73) ^ 0xff).collect();
            let text = encode(&bytes);
            assert!(!text.contains(['=', '+', '/']));
            assert_eq!(decode(&text), Ok(bytes));
        }
    }

    #[test]
    fn refuses_every_other_spelling() {
        assert_eq!(decode("_-8"), Ok(vec![0xff, 0xef]));
        for text in ["_-8=", "/+8", "_-9", "_-8\n", " _-8", "_- 8", "_", "_-8_-", "é", "_-8.", "\0\0\0"] {
            assert_eq!(decode(text), Err(NotBase64Url), "{text:?}");
        }
    }

    #[test]
    fn one_value_has_one_spelling() {
        // Two bytes leave two bits unused, one byte leaves four.
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let accepted = |prefix: &str| {
            alphabet.iter().filter(|&&last| decode(format!("{prefix}{}", char::from(last))).is_ok()).count()
        };
        assert_eq!(accepted("AA"), 16);
        assert_eq!(accepted("A"), 4);
    }
}
