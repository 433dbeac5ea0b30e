//! Bounds of the document.
use crate::config;
use crate::config::Invalid;

pub(super) fn check_limits(limits: &config::Limits) -> Result<config::Limits, Invalid> {
    let bounds = [
        ("token_bytes", limits.token_bytes, 256, 65_536),
        ("cached_tokens", limits.cached_tokens, 0, 65_536),
        ("cached_token_bytes", limits.cached_token_bytes, 65_536, 268_435_456),
        ("shared_verdicts", limits.shared_verdicts, 0, 65_536),
        ("waiting_requests", limits.waiting_requests, 1, 16_384),
        ("feed_bytes", limits.feed_bytes, 65_536, 268_435_456),
        ("open_streams", limits.open_streams, 1, 65_536),
    ];
    for (field, value, least, most) in bounds {
        if !(least..=most).contains(&value) {
            return Err(Invalid::new(format!("limits.{field}"), format!("{value} is not within {least} to {most}")));
        }
    }
    Ok(limits.clone())
}
