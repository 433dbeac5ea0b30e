//! Conditions of a rule on single claims.
use jose::json::{Json, Number};

use crate::config::{Mode, Scalar};
use crate::reject::{Cause, Rejection};

#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) claim: Vec<String>,
    pub(crate) matcher: ClaimMatcher,
    pub(crate) mode: Mode,
}

#[derive(Debug)]
pub(crate) enum ClaimMatcher {
    OneOf(Vec<ClaimValue>),
    ContainsAny(Vec<ClaimValue>),
    Present(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClaimValue {
    Bool(bool),
    Number(Number),
    String(String),
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
    pub(crate) fn new(scalar: &Scalar) -> Option<Self> {
        Some(match scalar {
            Scalar::Bool(value) => ClaimValue::Bool(*value),
            Scalar::String(value) => ClaimValue::String(value.clone()),
            Scalar::Number(value) => ClaimValue::Number(if let Some(value) = value.as_u64() {
                Number::Unsigned(value)
            } else if let Some(value) = value.as_i64() {
                Number::Negative(value)
            } else {
                Number::Float(value.as_f64().filter(|value| value.is_finite())?)
            }),
        })
    }
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

/// 1 and 1.0 are equal in JSON. Integers are compared as integers: as floats, 2^53 and 2^53 + 1 would be equal.
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
