//! Nonces (RFC 9449 sections 8 and 9) without state: the time of issue, and a MAC over it and the thumbprint of the key that
//! may use it. All proxies with the same secret accept each other's.
//!
//! ```text
//! nonce  base64url( issued u64 | mac 16 )
//! ```
use jose::base64url;
use subtle::ConstantTimeEq as _;

use super::Dpop;
use crate::reject::Cause;
use crate::time::UnixSeconds;

/// A nonce that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Fresh,
    /// In the last third of its lifetime.
    EndsSoon,
}

/// Clocks of two proxies may differ by as much.
const CLOCKS_DIFFER: u64 = 5;

impl Dpop {
    /// A nonce for proofs of this key. `None` if the document asks for none.
    pub(crate) fn new_nonce(&self, jkt: &[u8; 32], now: UnixSeconds) -> Option<String> {
        self.nonce_lifetime?;
        let issued = now.0.to_be_bytes();
        Some(base64url::encode([&issued[..], &self.nonce_mac(&issued, jkt)].concat()))
    }

    pub(super) fn judge_nonce(&self, nonce: Option<&str>, jkt: &[u8; 32], now: UnixSeconds) -> Result<Judged, Cause> {
        let Some(lifetime) = self.nonce_lifetime else { return Ok(Judged::Fresh) };
        let bytes = base64url::decode(nonce.ok_or(Cause::NonceMissing)?).map_err(|_| Cause::NonceForeign)?;
        let (issued, mac) = bytes.split_first_chunk::<8>().ok_or(Cause::NonceForeign)?;
        if !bool::from(self.nonce_mac(issued, jkt).as_slice().ct_eq(mac)) {
            return Err(Cause::NonceForeign);
        }
        let issued = u64::from_be_bytes(*issued);
        let left = issued.saturating_add(lifetime).checked_sub(now.0).ok_or(Cause::NonceOld)?;
        if issued > now.0.saturating_add(CLOCKS_DIFFER) {
            return Err(Cause::NonceForeign);
        }
        Ok(if left < lifetime.checked_div(3).unwrap_or_default() { Judged::EndsSoon } else { Judged::Fresh })
    }

    fn nonce_mac(&self, issued: &[u8; 8], jkt: &[u8; 32]) -> [u8; 16] {
        self.derived.cache_mac(&[b"dpop nonce", issued, jkt])
    }
}
