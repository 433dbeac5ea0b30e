//! Text of others, fit for one of our log lines.

/// At most 64 characters, with `?` for each that is not visible ASCII: the publisher of a key set must not write into our
/// log.
pub fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
