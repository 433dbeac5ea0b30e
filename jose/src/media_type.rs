//! Media types in `typ` and `cty`, as RFC 7515 sections 4.1.9 and 4.1.10 compare them.

/// In lower case, and without `application/`, which may be left out.
pub fn plain_type(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => lower,
    }
}
