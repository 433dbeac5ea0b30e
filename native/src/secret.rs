//! Secrets, which the configuration names and does not hold.
use std::ffi::OsString;

/// The environment variable `name`, or the content of the file that `name` with `_FILE` after it names, without the line
/// feed at its end. The variable wins.
pub fn secret(name: &str) -> Option<Vec<u8>> {
    find(name, &|name| std::env::var_os(name))
}

fn find(name: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Vec<u8>> {
    if let Some(value) = variable(name) {
        return Some(value.into_encoded_bytes());
    }
    let path = variable(&format!("{name}_FILE"))?;
    let mut content = std::fs::read(path).ok()?;
    if content.ends_with(b"\n") {
        content.pop();
        if content.ends_with(b"\r") {
            content.pop();
        }
    }
    Some(content)
}
