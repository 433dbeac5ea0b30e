//! The registered claims (RFC 7519 section 4.1) and what a rule asks of claims. Signatures are `verify`'s matter.
use jose::Header;
use jose::json::{Json, Number, Object};
use wire::Kind;

use crate::policy::{ClaimMatcher, ClaimValue, Condition, Issuer};
use crate::reject::{Cause, Rejection};
use crate::time::UnixSeconds;

pub(crate) mod identifiers;
pub(crate) mod provider;
pub(crate) mod tenants;
pub(crate) mod token_kind;

/// When the token counts, skew included: from (inclusive) to (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: UnixSeconds,
    pub until: UnixSeconds,
    /// When its login is too old, whatever `exp` says.
    pub login_until: UnixSeconds,
}

/// The claims that every token of an issuer is judged by, once, when it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub window: Window,
    /// `auth_time` where present, else `iat`: the moment that revocations are compared with.
    pub issued: Option<UnixSeconds>,
}

impl Window {
    const ALWAYS: Self =
        Self { from: UnixSeconds(0), until: UnixSeconds(u64::MAX), login_until: UnixSeconds(u64::MAX) };

    /// # Errors
    /// [`crate::reject::RejectReason::JwtExpired`], [`crate::reject::RejectReason::JwtTooLongLived`] or
    /// [`crate::reject::RejectReason::JwtNotYetValid`].
    pub fn check(self, now: UnixSeconds) -> Result<(), Rejection> {
        // RFC 7519 section 4.1.4: the current time must be before `exp`.
        if now >= self.until {
            return Err(Rejection::new(Cause::ExpPassed));
        }
        if now >= self.login_until {
            return Err(Rejection::new(Cause::LoginTooOld));
        }
        if now < self.from {
            return Err(Rejection::new(Cause::NotYetValid));
        }
        Ok(())
    }
}

/// `iss` of a payload whose signature is yet to be checked: it only selects whose keys may check it.
pub(crate) fn unverified_issuer<'j>(payload: &'j Object<'_>) -> Result<&'j str, Rejection> {
    match payload.claim("iss") {
        None => Err(Rejection::new(Cause::IssMissing)),
        Some(Json::String(issuer)) => Ok(issuer),
        Some(_) => Err(Rejection::new(Cause::IssNotString)),
    }
}

/// Refuses what has expired, whoever signed it. What is no time at all is left for [`check_registered`].
pub(crate) fn check_unexpired(issuer: &Issuer, payload: &Object<'_>, now: UnixSeconds) -> Result<(), Rejection> {
    match numeric_date(payload, "exp", Round::Down) {
        Ok(Some(exp)) => Window { until: UnixSeconds(exp.saturating_add(issuer.skew)), ..Window::ALWAYS }.check(now),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Everything about a verified token that does not depend on the request, and its times.
///
/// # Errors
/// The first claim that is not acceptable.
pub(crate) fn check_registered(
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
pub(crate) fn check_introspected(
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
pub(crate) fn check_confirmed(
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

/// Media types compare without case, and `application/` may be left out (RFC 7515 section 4.1.9).
pub(crate) fn plain_type(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => lower,
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

/// When the user logged in. Some issuers say 0 where they do not know.
fn auth_time(payload: &Object<'_>) -> Result<Option<u64>, Rejection> {
    Ok(numeric_date(payload, "auth_time", Round::Down)?.filter(|auth_time| *auth_time != 0))
}

#[derive(Clone, Copy)]
enum Round {
    Down,
    Up,
}

/// 9999-12-31T23:59:59Z: beyond it lies a unit error (milliseconds), never a date.
const LAST_SECOND: u64 = 253_402_300_799;

/// A NumericDate (RFC 7519 section 2). A fraction is allowed; a negative or huge number is not a time that any token
/// could mean.
fn numeric_date(payload: &Object<'_>, name: &'static str, round: Round) -> Result<Option<u64>, Rejection> {
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

/// Absent and malformed are two cases: a `sub` that is a number must not be read as no `sub`.
pub(crate) fn optional_string<'j>(payload: &'j Object<'_>, name: &'static str) -> Result<Option<&'j str>, Rejection> {
    match payload.claim(name) {
        None => Ok(None),
        Some(Json::String(value)) => Ok(Some(value)),
        Some(_) => Err(Rejection::with_detail(Cause::ClaimNotString, name)),
    }
}

/// Does the token have every scope in `all`, and one of `any` if there are any?
///
/// # Errors
/// [`crate::reject::RejectReason::ScopeInsufficient`], or [`crate::reject::RejectReason::InvalidClaim`] for a scope claim of another shape.
pub(crate) fn check_scopes(all: &[String], any: &[String], payload: &Object<'_>) -> Result<(), Rejection> {
    if all.is_empty() && any.is_empty() {
        return Ok(());
    }
    let malformed = || Rejection::new(Cause::ScopeNotStrings);
    // Both are read: `scope` per RFC 8693 section 4.2, and the `scp` that some providers use in its place.
    let mut granted: Vec<&str> = Vec::new();
    for name in ["scope", "scp"] {
        match payload.claim(name) {
            None => {}
            Some(Json::String(words)) => granted.extend(words.split(' ').filter(|word| !word.is_empty())),
            Some(Json::Array(members)) => {
                for member in members {
                    let Json::String(word) = member else { return Err(malformed()) };
                    granted.push(word);
                }
            }
            Some(_) => return Err(malformed()),
        }
    }
    let has = |scope: &String| granted.contains(&scope.as_str());
    if all.iter().all(has) && (any.is_empty() || any.iter().any(has)) {
        return Ok(());
    }
    Err(Rejection::new(Cause::ScopeMissing))
}

/// # Errors
/// [`crate::reject::RejectReason::ClaimInsufficient`] when the condition does not hold: another token of the same user would not
/// help.
pub(crate) fn check_condition(condition: &Condition, payload: &Json<'_>) -> Result<(), Rejection> {
    let value = payload.path(&condition.claim);
    let holds = match &condition.matcher {
        ClaimMatcher::Present(wanted) => value.is_some() == *wanted,
        ClaimMatcher::OneOf(wanted) => value.is_some_and(|value| wanted.iter().any(|wanted| wanted.is(value))),
        ClaimMatcher::ContainsAny(wanted) => match value {
            Some(Json::Array(members)) => members.iter().any(|member| wanted.iter().any(|wanted| wanted.is(member))),
            Some(Json::String(words)) => wanted.iter().any(|wanted| match wanted {
                ClaimValue::String(word) => words.split(' ').any(|one| one == word),
                ClaimValue::Bool(_) | ClaimValue::Number(_) => false,
            }),
            _ => false,
        },
    };
    if holds {
        return Ok(());
    }
    Err(Rejection::with_detail(Cause::ClaimRefusedByRule, condition.claim.join(".")))
}

impl ClaimValue {
    fn is(&self, value: &Json<'_>) -> bool {
        match (self, value) {
            (ClaimValue::Bool(wanted), Json::Bool(value)) => wanted == value,
            (ClaimValue::String(wanted), Json::String(value)) => wanted == value,
            (ClaimValue::Number(wanted), Json::Number(value)) => same_number(*wanted, *value),
            _ => false,
        }
    }
}

/// 1 and 1.0 are one number in JSON. Integers compare as integers: as floats, 2^53 and 2^53 + 1 would be equal.
fn same_number(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Unsigned(a), Number::Unsigned(b)) => a == b,
        (Number::Negative(a), Number::Negative(b)) => a == b,
        (Number::Float(a), Number::Float(b)) => a == b,
        (Number::Float(float), Number::Unsigned(whole)) | (Number::Unsigned(whole), Number::Float(float)) => {
            float.fract() == 0.0 && float >= 0.0 && float < u64::MAX as f64 && float as u64 == whole
        }
        (Number::Float(float), Number::Negative(whole)) | (Number::Negative(whole), Number::Float(float)) => {
            float.fract() == 0.0 && float < 0.0 && float >= i64::MIN as f64 && float as i64 == whole
        }
        (Number::Unsigned(_), Number::Negative(_)) | (Number::Negative(_), Number::Unsigned(_)) => false,
    }
}
