//! Conditions on claims, compiled.
use crate::claims::condition::{ClaimMatcher, ClaimValue, Condition};
use crate::config;
use crate::config::{Invalid, Scalar, claim_path};

pub(super) fn compile_condition(document: &config::Condition, at: &str) -> Result<Condition, Invalid> {
    let claim = claim_path(&document.claim, &format!("{at}.claim"))?;
    let wanted = |field: &str, scalars: &[Scalar]| {
        if scalars.is_empty() {
            return Err(Invalid::new(format!("{at}.{field}"), "name at least one value"));
        }
        scalars
            .iter()
            .map(|scalar| {
                ClaimValue::new(scalar).ok_or_else(|| Invalid::new(format!("{at}.{field}"), "is not a finite number"))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let matcher = match document {
        config::Condition {
            equals: Some(value),
            one_of: None,
            contains: None,
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::OneOf(wanted("equals", std::slice::from_ref(value))?),
        config::Condition {
            equals: None,
            one_of: Some(values),
            contains: None,
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::OneOf(wanted("one_of", values)?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: Some(value),
            contains_any: None,
            present: None,
            ..
        } => ClaimMatcher::ContainsAny(wanted("contains", std::slice::from_ref(value))?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: None,
            contains_any: Some(values),
            present: None,
            ..
        } => ClaimMatcher::ContainsAny(wanted("contains_any", values)?),
        config::Condition {
            equals: None,
            one_of: None,
            contains: None,
            contains_any: None,
            present: Some(is_there),
            ..
        } => ClaimMatcher::Present(*is_there),
        _ => {
            return Err(Invalid::new(
                at,
                "give exactly one of `equals`, `one_of`, `contains`, `contains_any` and `present`",
            ));
        }
    };
    Ok(Condition { claim, matcher, mode: document.mode })
}
