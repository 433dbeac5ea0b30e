//! A Token Status List (draft-ietf-oauth-status-list): one bit a token, and what is kept of a token to set its bit.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use serde::Serialize;
use wire::RevocationKey;

/// Tokens of one list.
pub const LIST_SIZE: u32 = 1 << 16;
/// Indexes whose tokens are kept under one name in the store.
pub const PAGE_SIZE: u32 = 256;
pub const PAGES: u32 = LIST_SIZE / PAGE_SIZE;

/// The highest level, which section 4.1 recommends.
const LEVEL: u8 = 10;
const FORM: u8 = 1;

/// An index of one of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub list: u16,
    /// Less than [`LIST_SIZE`].
    pub index: u32,
}

/// A token of a list: how long it counts, and the revocations that end it. It names nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub index: u32,
    /// Unix seconds.
    pub exp: u64,
    /// When the user logged in, in Unix seconds: revocations of earlier logins do not end it.
    pub auth_time: u64,
    pub keys: Vec<RevocationKey>,
}

/// One bit a token: 0 valid, 1 invalid (sections 4.1 and 7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<u8>);

/// The claim `status` of a token (section 6.2).
#[derive(Debug, Clone, Serialize)]
pub struct StatusClaim {
    status_list: Reference,
}

#[derive(Debug, Clone, Serialize)]
struct Reference {
    idx: u32,
    uri: String,
}

/// The payload of a Status List Token (section 5.1). Times are Unix seconds.
#[derive(Debug, Serialize)]
pub struct ListClaims<'a> {
    pub iss: &'a str,
    /// The URI that tokens have in their claim.
    pub sub: &'a str,
    pub iat: u64,
    pub exp: u64,
    /// For so many seconds a reader may keep it.
    pub ttl: u64,
    pub status_list: StatusList,
}

/// Section 4.2.
#[derive(Debug, Serialize)]
pub struct StatusList {
    bits: u8,
    lst: String,
}

impl Place {
    pub fn page(self) -> u32 {
        self.index / PAGE_SIZE
    }
}

impl StatusClaim {
    pub fn new(uri: String, index: u32) -> Self {
        Self { status_list: Reference { idx: index, uri } }
    }
}

impl Member {
    /// `form | index 4 | exp 8 | auth_time 8 | keys 16 each`, big-endian, as base64url. It is part of the stored format.
    pub fn to_text(&self) -> String {
        let mut bytes = vec![FORM];
        bytes.extend(self.index.to_be_bytes());
        bytes.extend(self.exp.to_be_bytes());
        bytes.extend(self.auth_time.to_be_bytes());
        self.keys.iter().for_each(|key| bytes.extend(key.0));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None`: another form, or not a member of this page.
    pub fn from_text(text: &str, page: u32) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let rest = bytes.strip_prefix(&[FORM])?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (exp, rest) = rest.split_first_chunk::<8>()?;
        let (auth_time, rest) = rest.split_first_chunk::<8>()?;
        let (keys, odd) = rest.as_chunks::<16>();
        let index = u32::from_be_bytes(*index);
        let is_whole = odd.is_empty() && !keys.is_empty() && index < LIST_SIZE && index / PAGE_SIZE == page;
        is_whole.then(|| Self {
            index,
            exp: u64::from_be_bytes(*exp),
            auth_time: u64::from_be_bytes(*auth_time),
            keys: keys.iter().copied().map(RevocationKey).collect(),
        })
    }
}

impl Statuses {
    /// Every token is valid.
    pub fn valid() -> Self {
        Self(vec![0; LIST_SIZE.div_ceil(8) as usize])
    }

    pub fn set_invalid(&mut self, index: u32) {
        if let Some(byte) = self.0.get_mut((index / 8) as usize) {
            *byte |= 1 << (index % 8);
        }
    }

    pub fn to_list(&self) -> StatusList {
        StatusList { bits: 1, lst: URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(&self.0, LEVEL)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            index: 300,
            exp: 1_700_000_300,
            auth_time: 7,
            keys: vec![RevocationKey([1; 16]), RevocationKey([2; 16])],
        }
    }

    #[test]
    fn a_member_is_read_as_it_was_written_and_only_on_its_page() {
        let text = member().to_text();
        assert_eq!(Member::from_text(&text, 1), Some(member()));
        assert_eq!(Member::from_text(&text, 0), None);
        for bad in ["", "AQ", "AgAAASwAAAAA", "!"] {
            assert_eq!(Member::from_text(bad, 0), None, "{bad}");
        }
        let without_keys = Member { keys: Vec::new(), ..member() }.to_text();
        assert_eq!(Member::from_text(&without_keys, 1), None, "nothing could end it");
        let outside = Member { index: LIST_SIZE, ..member() }.to_text();
        assert_eq!(Member::from_text(&outside, PAGES), None);
    }

    /// The first example of section 4.1.
    #[test]
    fn bits_are_packed_from_the_least_significant_one() {
        let mut statuses = Statuses(vec![0; 2]);
        for index in [0, 3, 4, 5, 7, 8, 9, 13, 15] {
            statuses.set_invalid(index);
        }
        assert_eq!(statuses.0, [0xb9, 0xa3]);
        statuses.set_invalid(16);
        assert_eq!(statuses.0, [0xb9, 0xa3], "beyond the list there is nothing");
        assert_eq!(statuses.to_list().lst, "eNrbuRgAAhcBXQ");
    }
}
