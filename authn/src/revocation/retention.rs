//! How long revocations must be kept so that no revoked token passes again.
use wire::{Kind, Retention};

/// The bounds of an issuer's tokens, in seconds.
pub(crate) struct Lifetimes {
    pub(crate) skew: u64,
    pub(crate) max_lifetime: u64,
    pub(crate) max_session: u64,
}

/// For the tokens of an issuer with these bounds, where these kinds are asked about. See docs/decisions/0069.
///
/// A token that was issued within the lead of its revocation is accepted until `exp` and skew, so for `max_lifetime`, skew
/// and lead. A login brings new tokens until `max_session` after `auth_time`; without `auth_time` a token counts by its own
/// issue.
pub(crate) fn needed(bounds: &Lifetimes, future_iat_tolerance: u64, kinds: &[Kind]) -> Retention {
    let seconds = |longest: u64| {
        let whole = longest.saturating_add(bounds.skew).saturating_add(future_iat_tolerance);
        u32::try_from(whole).unwrap_or(u32::MAX)
    };
    let asks = |wanted: fn(Kind) -> bool| kinds.iter().any(|kind| wanted(*kind));
    let token = asks(|kind| kind == Kind::Token);
    // A signing key is revoked forever.
    let login = asks(|kind| matches!(kind, Kind::Session | Kind::User | Kind::Client | Kind::Issuer | Kind::StepUp));
    Retention {
        token: if token { seconds(bounds.max_lifetime) } else { 0 },
        login: if login { seconds(bounds.max_lifetime.max(bounds.max_session)) } else { 0 },
    }
}
