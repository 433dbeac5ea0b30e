//! Checks of single values of the document, with the field that an error names.
use jose::base64url;

use super::{ConfigDuration, Invalid, OneOrMany, SecretEncoding};

/// Returns the bytes of an environment variable of the VM.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

pub(crate) fn secret_from(
    environment: Environment<'_>,
    variable: &str,
    encoding: SecretEncoding,
    field: &str,
) -> Result<Vec<u8>, Invalid> {
    let value = environment(variable)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Invalid::new(field, format!("the VM's environment has no variable `{variable}`")))?;
    match encoding {
        SecretEncoding::Raw => Ok(value),
        SecretEncoding::Base64url => base64url::decode(value.trim_ascii())
            .map_err(|_| Invalid::new(field, format!("`{variable}` does not hold base64url without padding"))),
    }
}

pub(crate) fn claim_path(claim: &OneOrMany<String>, at: &str) -> Result<Vec<String>, Invalid> {
    let path = claim.as_slice();
    if path.is_empty() || path.iter().any(String::is_empty) {
        return Err(Invalid::new(at, "name a claim"));
    }
    Ok(path.to_vec())
}

pub(crate) fn name_or(name: Option<&str>, what: &str, index: usize, at: &str) -> Result<String, Invalid> {
    match name {
        None => Ok(format!("{what}-{index}")),
        Some(name)
            if !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') =>
        {
            Ok(name.to_owned())
        }
        Some(_) => Err(Invalid::new(
            format!("{at}.name"),
            "use 1 to 64 letters, digits, `-` and `_`: it becomes a metric's label",
        )),
    }
}

/// Claims are compared in whole seconds: a fraction would be dropped silently.
pub(crate) fn whole_seconds(
    value: ConfigDuration,
    least: ConfigDuration,
    most: ConfigDuration,
    at: &str,
) -> Result<u64, Invalid> {
    check_range(value, least, most, at)?;
    if value.0.subsec_nanos() != 0 {
        return Err(Invalid::new(at, "must be whole seconds"));
    }
    Ok(value.0.as_secs())
}

pub(crate) fn check_range(
    value: ConfigDuration,
    least: ConfigDuration,
    most: ConfigDuration,
    at: &str,
) -> Result<(), Invalid> {
    if value < least || value > most {
        return Err(Invalid::new(at, format!("must be within {:?} to {:?}", least.0, most.0)));
    }
    Ok(())
}
