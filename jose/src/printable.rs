//! Text from outside, made safe for a log line.

/// At most 64 characters, with `?` for each that is not visible ASCII. The publisher of a key set must not be able to
/// write lines into the log.
pub fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
