//! The claims that each token of an issuer must satisfy, whatever the request: type, audience, required claims, times.
use jose::json::{Json, Object};
use jose::{Header, plain_type};
use wire::Kind;

use crate::claims::members::{Round, auth_time, numeric_date, optional_string};
use crate::claims::window::{Times, Window};
use crate::policy::Issuer;
use crate::reject::{Cause, Rejection};
use crate::time::UnixSeconds;

/// Refuses what has expired, whoever signed it. What is no time at all is left for [`check_registered`].
pub(super) fn check_unexpired(issuer: &Issuer, payload: &Object<'_>, now: UnixSeconds) -> Result<(), Rejection> {
    match numeric_date(payload, "exp", Round::Down) {
        Ok(Some(exp)) => Window { until: UnixSeconds(exp.saturating_add(issuer.skew)), ..Window::ALWAYS }.check(now),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Everything about a verified token that does not depend on the request, and its times.
///
/// # Errors
/// The first claim that is not acceptable.
pub(super) fn check_registered(
    issuer: &Issuer,
    future_iat_tolerance: u64,
    header: &Header,
    payload: &Object<'_>,
    now: UnixSeconds,
) -> Result<Times, Rejection> {
    check_type(issuer, header)?;
    check_claims(issuer, payload)?;
    issuer.kinds.check(header.typ.as_deref(), payload)?;
    check_times(issuer, future_iat_tolerance, payload, now)
}

/// As [`check_registered`], of an active token's introspection response (RFC 7662 section 2.2). Its claims may be absent
/// where a JWT's may not: the server has vouched for the token already, and only for a moment.
///
/// # Errors
/// The first claim that is not acceptable.
pub(super) fn check_introspected(
    issuer: &Issuer,
    future_iat_tolerance: u64,
    response: &Object<'_>,
    now: UnixSeconds,
) -> Result<Times, Rejection> {
    match response.claim("iss") {
        None => {}
        Some(Json::String(iss)) if *iss == issuer.issuer => {}
        Some(_) => return Err(Rejection::new(Cause::IssOfAnother)),
    }
    // Servers answer `active` for refresh tokens too: RFC 7662 section 2.1 lets them.
    issuer.kinds.check_introspected(response)?;
    check_claims(issuer, response)?;
    check_introspected_times(issuer, future_iat_tolerance, response, now)
}

/// An active JWT's introspection response. It must be about this token, and can shorten its time.
///
/// # Errors
/// It is about another token, another kind of token, or its time is over.
pub(super) fn check_confirmed(
    issuer: &Issuer,
    token: &Object<'_>,
    response: &Object<'_>,
    now: UnixSeconds,
) -> Result<Window, Rejection> {
    issuer.kinds.check(None, response)?;
    for name in ["iss", "sub", "jti", "sid"] {
        check_same(name, optional_string(token, name)?, optional_string(response, name)?)?;
    }
    issuer.identifiers.check_same(token, response)?;
    // RFC 7662 section 2.2 calls it so, whatever the token does.
    let client = optional_string(response, "client_id")?.or(optional_string(response, "azp")?);
    check_same("client_id", issuer.identifiers.find(Kind::Client, token)?, client)?;
    // RFC 8705 section 3.2: the server may know of a binding that the token does not show, and nobody checked that one.
    if let Some(cnf) = response.claim("cnf")
        && token.claim("cnf") != Some(cnf)
    {
        return Err(Rejection::with_detail(Cause::AnswerContradicts, "cnf"));
    }
    let until = numeric_date(response, "exp", Round::Down)?.map_or(u64::MAX, |exp| exp.saturating_add(issuer.skew));
    let from = numeric_date(response, "nbf", Round::Up)?.map_or(0, |nbf| nbf.saturating_sub(issuer.skew));
    let window = Window { from: UnixSeconds(from), until: UnixSeconds(until), ..Window::ALWAYS };
    window.check(now).map(|()| window)
}

/// What one of both does not say contradicts nothing.
fn check_same(name: &'static str, ours: Option<&str>, theirs: Option<&str>) -> Result<(), Rejection> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Rejection::with_detail(Cause::AnswerContradicts, name)),
        _ => Ok(()),
    }
}

fn check_claims(issuer: &Issuer, payload: &Object<'_>) -> Result<(), Rejection> {
    check_audience(issuer, payload)?;
    issuer.identifiers.check(payload)?;
    for name in &issuer.required_claims {
        // A login whose time is 0 is none: a revocation would be compared with `iat` after all.
        let is_there = match name.as_str() {
            "auth_time" => auth_time(payload)?.is_some(),
            name => payload.claim(name).is_some(),
        };
        if !is_there {
            return Err(Rejection::with_detail(Cause::ClaimMissing, name.clone()));
        }
    }
    Ok(())
}

fn check_type(issuer: &Issuer, header: &Header) -> Result<(), Rejection> {
    let refused = || Rejection::new(Cause::TypNotAccepted);
    match (&issuer.types, &header.typ) {
        (None, None) => Ok(()),
        (None, Some(typ)) => {
            let typ = plain_type(typ);
            if typ == "jwt" || typ == "at+jwt" { Ok(()) } else { Err(refused()) }
        }
        (Some(_), None) => Err(refused()),
        (Some(accepted), Some(typ)) => {
            if accepted.contains(&plain_type(typ)) {
                Ok(())
            } else {
                Err(refused())
            }
        }
    }
}

fn check_audience(issuer: &Issuer, payload: &Object<'_>) -> Result<(), Rejection> {
    let Some(accepted) = &issuer.audiences else { return Ok(()) };
    let is_ours = |audience: &str| accepted.iter().any(|ours| ours == audience);
    let found = match payload.claim("aud") {
        None => return Err(Rejection::new(Cause::AudMissing)),
        Some(Json::String(audience)) => is_ours(audience),
        Some(Json::Array(audiences)) => {
            let mut found = false;
            for audience in audiences {
                let Json::String(audience) = audience else {
                    return Err(Rejection::new(Cause::AudMemberNotString));
                };
                found |= is_ours(audience);
            }
            found
        }
        Some(_) => return Err(Rejection::new(Cause::AudNotStrings)),
    };
    if found { Ok(()) } else { Err(Rejection::new(Cause::AudOfOthers)) }
}

fn check_times(
    issuer: &Issuer,
    future_iat_tolerance: u64,
    payload: &Object<'_>,
    now: UnixSeconds,
) -> Result<Times, Rejection> {
    let Some(exp) = numeric_date(payload, "exp", Round::Down)? else {
        return Err(Rejection::new(Cause::ExpMissing));
    };
    check_times_until(issuer, future_iat_tolerance, payload, exp, now)
}

/// Without `exp` the token counts for as long as the server says so, and in no case longer than revocations are kept.
fn check_introspected_times(
    issuer: &Issuer,
    future_iat_tolerance: u64,
    response: &Object<'_>,
    now: UnixSeconds,
) -> Result<Times, Rejection> {
    let exp = match numeric_date(response, "exp", Round::Down)? {
        Some(exp) => exp,
        None => {
            let iat = numeric_date(response, "iat", Round::Down)?;
            let issued = iat.or(auth_time(response)?);
            issued.unwrap_or(now.0).saturating_add(issuer.max_lifetime)
        }
    };
    check_times_until(issuer, future_iat_tolerance, response, exp, now)
}

fn check_times_until(
    issuer: &Issuer,
    future_iat_tolerance: u64,
    payload: &Object<'_>,
    exp: u64,
    now: UnixSeconds,
) -> Result<Times, Rejection> {
    let nbf = numeric_date(payload, "nbf", Round::Up)?;
    let iat = numeric_date(payload, "iat", Round::Down)?;
    let auth_time = auth_time(payload)?;
    let mut from = nbf.map_or(0, |nbf| nbf.saturating_sub(issuer.skew));
    for stamp in [iat, auth_time].into_iter().flatten() {
        from = from.max(stamp.saturating_sub(future_iat_tolerance));
    }
    let times = Times {
        window: Window {
            from: UnixSeconds(from),
            until: UnixSeconds(exp.saturating_add(issuer.skew)),
            login_until: UnixSeconds(auth_time.map_or(u64::MAX, |auth_time| {
                auth_time.saturating_add(issuer.max_session).saturating_add(issuer.skew)
            })),
        },
        issued: auth_time.or(iat).map(UnixSeconds),
    };
    times.window.check(now)?;
    // Revocations are kept for just these times ([`crate::revocation::retention`]): what outlives them would come back to life.
    if exp.saturating_sub(iat.or(auth_time).unwrap_or(now.0)) > issuer.max_lifetime {
        return Err(Rejection::new(Cause::TooLongLived));
    }
    Ok(times)
}
