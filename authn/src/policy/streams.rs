//! When the streams of a rule are ended, compiled.
use std::time::Duration;

use crate::config::{self, ConfigDuration, EndOn, Invalid, RevocationMode, check_range};

/// At least one of the first two is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub on_revoked: bool,
    pub on_expired: bool,
    /// `None`: for as long as it takes.
    pub cannot_tell_for: Option<Duration>,
}

/// As long as the longest freshness and the longest lag.
const SHORTEST: ConfigDuration = ConfigDuration::from_secs(5);
const LONGEST: ConfigDuration = ConfigDuration::from_secs(3600);

pub(super) fn compile_streams(
    document: &config::Streams,
    revocation: RevocationMode,
    at: &str,
) -> Result<Streams, Invalid> {
    let invalid = |field: &str, message: &str| Err(Invalid::new(format!("{at}.{field}"), message));
    let count = |wanted: EndOn| document.end_on.iter().filter(|on| **on == wanted).count();
    let (revoked, expired) = (count(EndOn::Revoked), count(EndOn::Expired));
    if document.end_on.is_empty() {
        return invalid("end_on", "name `revoked`, `expired` or both, or leave `streams` out");
    }
    if revoked > 1 || expired > 1 {
        return invalid("end_on", "has a value twice");
    }
    if revoked > 0 && revocation == RevocationMode::Off {
        return invalid("end_on", "`revoked` needs a rule that checks revocations");
    }
    check_range(document.cannot_tell_for, SHORTEST, LONGEST, &format!("{at}.cannot_tell_for"))?;
    let is_bounded = revocation == RevocationMode::Check;
    Ok(Streams {
        on_revoked: revoked > 0,
        on_expired: expired > 0,
        cannot_tell_for: is_bounded.then_some(document.cannot_tell_for.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str, mode: RevocationMode) -> Result<Streams, String> {
        let document: config::Streams = serde_json::from_str(text).unwrap();
        compile_streams(&document, mode, "rules[0].streams").map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn streams_end_by_what_is_named() {
        let both = compiled(r#"{"end_on":["revoked","expired"]}"#, RevocationMode::Check).unwrap();
        assert!(both.on_revoked && both.on_expired);
        assert_eq!(both.cannot_tell_for, Some(Duration::from_secs(30)));
        let expired = compiled(r#"{"end_on":["expired"],"cannot_tell_for":"5s"}"#, RevocationMode::Off).unwrap();
        assert!(!expired.on_revoked && expired.on_expired);
        let passes = RevocationMode::DangerouslyPassWhenUnavailable;
        assert_eq!(compiled(r#"{"end_on":["revoked"]}"#, passes).unwrap().cannot_tell_for, None);
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        for (text, mode, field) in [
            (r#"{"end_on":[]}"#, RevocationMode::Check, "end_on"),
            (r#"{"end_on":["expired","expired"]}"#, RevocationMode::Check, "end_on"),
            (r#"{"end_on":["revoked"]}"#, RevocationMode::Off, "end_on"),
            (r#"{"end_on":["revoked"],"cannot_tell_for":"4s"}"#, RevocationMode::Check, "cannot_tell_for"),
            (r#"{"end_on":["revoked"],"cannot_tell_for":"2h"}"#, RevocationMode::Check, "cannot_tell_for"),
        ] {
            let refused = compiled(text, mode).unwrap_err();
            assert!(refused.starts_with(&format!("rules[0].streams.{field}: ")), "{text}: {refused}");
        }
    }
}
