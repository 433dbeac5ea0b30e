//! The scopes of a token.
use jose::json::{Json, Object};

use crate::reject::{Cause, Rejection};

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
