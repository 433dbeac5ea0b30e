//! Claims read as the types that RFC 7519 gives them. Absent and malformed are two cases.
use jose::json::{Json, Number, Object};

use crate::reject::{Cause, Rejection};

/// `iss` of a payload whose signature is yet to be checked: it only selects whose keys may check it.
pub(crate) fn unverified_issuer<'j>(payload: &'j Object<'_>) -> Result<&'j str, Rejection> {
    match payload.claim("iss") {
        None => Err(Rejection::new(Cause::IssMissing)),
        Some(Json::String(issuer)) => Ok(issuer),
        Some(_) => Err(Rejection::new(Cause::IssNotString)),
    }
}

/// Absent and malformed are two cases: a `sub` that is a number must not be read as no `sub`.
pub(crate) fn optional_string<'j>(payload: &'j Object<'_>, name: &'static str) -> Result<Option<&'j str>, Rejection> {
    match payload.claim(name) {
        None => Ok(None),
        Some(Json::String(value)) => Ok(Some(value)),
        Some(_) => Err(Rejection::with_detail(Cause::ClaimNotString, name)),
    }
}

/// When the user logged in. Some issuers say 0 where they do not know.
pub(crate) fn auth_time(payload: &Object<'_>) -> Result<Option<u64>, Rejection> {
    Ok(numeric_date(payload, "auth_time", Round::Down)?.filter(|auth_time| *auth_time != 0))
}

#[derive(Clone, Copy)]
pub(crate) enum Round {
    Down,
    Up,
}

/// 9999-12-31T23:59:59Z: beyond it lies a unit error (milliseconds), never a date.
const LAST_SECOND: u64 = 253_402_300_799;

/// A NumericDate (RFC 7519 section 2). A fraction is allowed; a negative or huge number is not a time that any token
/// could mean.
pub(crate) fn numeric_date(payload: &Object<'_>, name: &'static str, round: Round) -> Result<Option<u64>, Rejection> {
    let refused = |cause| Rejection::with_detail(cause, name);
    let seconds = match payload.claim(name) {
        None => return Ok(None),
        Some(Json::Number(Number::Unsigned(seconds))) => *seconds,
        Some(Json::Number(Number::Negative(_))) => return Err(refused(Cause::TimeNegative)),
        Some(Json::Number(Number::Float(seconds))) => {
            let whole = match round {
                Round::Down => seconds.floor(),
                Round::Up => seconds.ceil(),
            };
            if seconds.is_sign_negative() {
                return Err(refused(Cause::TimeNegative));
            }
            if !whole.is_finite() || whole > LAST_SECOND as f64 {
                return Err(refused(Cause::TimeTooLarge));
            }
            whole as u64
        }
        Some(_) => return Err(refused(Cause::TimeNotNumber)),
    };
    if seconds > LAST_SECOND {
        return Err(refused(Cause::TimeTooLarge));
    }
    Ok(Some(seconds))
}
