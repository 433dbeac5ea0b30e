//! How long revocations must be kept so that no revoked token passes again.
use wire::{Kind, Retention};

use crate::policy::Issuer;

/// For the tokens of `issuer`, if these kinds are checked. See docs/decisions/0069.
///
/// A token issued within the tolerance of its revocation is accepted until `exp` plus skew, so for `max_lifetime`, skew
/// and tolerance. A login gives new tokens until `max_session` after `auth_time`; without `auth_time` a token counts by
/// its own issue.
pub(crate) fn needed(issuer: &Issuer, future_iat_tolerance: u64, kinds: &[Kind]) -> Retention {
    let seconds = |longest: u64| {
        let whole = longest.saturating_add(issuer.skew).saturating_add(future_iat_tolerance);
        u32::try_from(whole).unwrap_or(u32::MAX)
    };
    let asks = |wanted: fn(Kind) -> bool| kinds.iter().any(|kind| wanted(*kind));
    let token = asks(|kind| kind == Kind::Token);
    // A signing key is revoked forever.
    let login = asks(|kind| matches!(kind, Kind::Session | Kind::User | Kind::Client | Kind::Issuer));
    Retention {
        token: if token { seconds(issuer.max_lifetime) } else { 0 },
        login: if login { seconds(issuer.max_lifetime.max(issuer.max_session)) } else { 0 },
    }
}
