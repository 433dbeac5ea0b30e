//! Base64url without padding (RFC 7515 section 2).

pub fn to_base64url(bytes: impl AsRef<[u8]>) -> String {
    jose::base64url::encode(bytes)
}

/// None for anything that is not canonical.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    jose::base64url::decode(text).ok()
}
