//! The flags of requests in access logs. docs/exposed.md lists them.

/// A hook of the module panicked.
pub const FAULT: &str = "PCF";
/// The filter ended its stream.
pub const ENDED: &str = "PCE";
const REFUSED: &str = "PCR";
const REVOKED: &str = "PCX";
const CANNOT_TELL: &str = "PCU";
const ADMITTED_UNCHECKED: &str = "PCA";

/// The flag of a request by its outcome and code, if it has one.
pub fn flag(outcome: &str, code: Option<&str>) -> Option<&'static str> {
    match (outcome, code) {
        ("refused", Some("SESSION_REVOKED")) => Some(REVOKED),
        ("refused", _) => Some(REFUSED),
        ("cannot_tell", _) => Some(CANNOT_TELL),
        ("admitted_unchecked", _) => Some(ADMITTED_UNCHECKED),
        _ => None,
    }
}
