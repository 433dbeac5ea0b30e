//! Values of options: each parser says what the value must be.
use std::ops::RangeInclusive;
use std::time::Duration;

use wire::parse_duration;

use crate::base::limits::{MAX_DURATION, MAX_SKEW};

/// Each session of a token is a thread while it signs.
const MAX_SIGNING_SESSIONS: usize = 64;
/// The data listener answers within 5 s.
const MAX_SIGNING_TIMEOUT: Duration = Duration::from_secs(4);
/// Less would only cost, and more would not fit the lags that filters may have.
const MIN_FEED_ROUND: Duration = Duration::from_millis(10);
const MAX_FEED_ROUND: Duration = Duration::from_secs(1);
/// Each is a connection, or a part of one.
const MAX_FOLLOWERS: usize = 100_000;
const MIN_COMPARE: Duration = Duration::from_secs(10);
const MAX_COMPARE: Duration = Duration::from_secs(86_400);
/// Each is 8 KB in memory, and less when it is sent.
const MAX_STATUS_LISTS: usize = 256;
/// Half of it is the `ttl` of a list, in whole seconds.
const STATUS_LIST_TTL: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(3600);
/// For so long a thief cannot be told from a race.
const MAX_REFRESH_GRACE: Duration = Duration::from_secs(60);

pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    match duration.is_zero() || duration > MAX_DURATION {
        true => Err("must be more than 0 and at most ten years".to_owned()),
        false => Ok(duration),
    }
}

/// Whole seconds, at least one.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    match duration.subsec_nanos() {
        0 => Ok(duration),
        _ => Err("must be whole seconds, at least one".to_owned()),
    }
}

/// How far clocks may differ.
pub fn skew(text: &str) -> Result<Duration, String> {
    at_most(parse_duration(text)?, MAX_SKEW)
}

pub fn refresh_grace(text: &str) -> Result<Duration, String> {
    at_most(parse_duration(text)?, MAX_REFRESH_GRACE)
}

pub fn feed_round(text: &str) -> Result<Duration, String> {
    let round = parse_duration(text)?;
    match (MIN_FEED_ROUND..=MAX_FEED_ROUND).contains(&round) {
        true => Ok(round),
        false => Err("must be 10ms to 1s".to_owned()),
    }
}

/// Between two comparisons of regions. More often would only cost.
pub fn compare(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    match (MIN_COMPARE..=MAX_COMPARE).contains(&interval) {
        true => Ok(interval),
        false => Err("must be 10s to 24h".to_owned()),
    }
}

/// 0: none.
pub fn followers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number <= MAX_FOLLOWERS => Ok(number),
        _ => Err(format!("must be a whole number, at most {MAX_FOLLOWERS}")),
    }
}

pub fn signing_timeout(text: &str) -> Result<Duration, String> {
    at_most(duration(text)?, MAX_SIGNING_TIMEOUT)
}

pub fn count(text: &str) -> Result<usize, String> {
    number(text, usize::MAX)
}

pub fn signing_sessions(text: &str) -> Result<usize, String> {
    number(text, MAX_SIGNING_SESSIONS)
}

pub fn status_lists(text: &str) -> Result<u16, String> {
    u16::try_from(number(text, MAX_STATUS_LISTS)?).map_err(|error| error.to_string())
}

pub fn status_list_ttl(text: &str) -> Result<Duration, String> {
    let ttl = seconds(text)?;
    match STATUS_LIST_TTL.contains(&ttl) {
        true => Ok(ttl),
        false => Err("must be 2s to 1h".to_owned()),
    }
}

/// `URL=CLAIM,…`. An issuer may have `=` in its query; the name of a claim here may not.
pub fn token_claims(text: &str) -> Result<(String, Vec<String>), String> {
    let (issuer, names) = text.rsplit_once('=').ok_or("write it as URL=CLAIM,CLAIM")?;
    let names: Vec<_> = names.split(',').map(str::to_owned).collect();
    match issuer.is_empty() || names.iter().any(String::is_empty) {
        true => Err("must have an issuer and claims".to_owned()),
        false => Ok((issuer.to_owned(), names)),
    }
}

fn at_most(duration: Duration, most: Duration) -> Result<Duration, String> {
    if duration > most { Err(format!("must be at most {}s", most.as_secs())) } else { Ok(duration) }
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ if most == usize::MAX => Err("must be a whole number, at least 1".to_owned()),
        _ => Err(format!("must be a whole number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_bounds() {
        assert!(duration("0s").is_err() && duration("3661d").is_err() && duration("1ms").is_ok());
        assert!(seconds("1500ms").is_err() && seconds("1s").is_ok());
        assert!(skew("301s").is_err() && skew("300s").is_ok() && skew("0s").is_ok());
        assert!(refresh_grace("61s").is_err() && refresh_grace("60s").is_ok());
        assert!(feed_round("9ms").is_err() && feed_round("1001ms").is_err() && feed_round("10ms").is_ok());
        assert!(compare("9s").is_err() && compare("25h").is_err() && compare("10m").is_ok());
        assert!(followers("100001").is_err() && followers("-1").is_err() && followers("0").is_ok());
        assert!(signing_timeout("0s").is_err() && signing_timeout("4001ms").is_err() && signing_timeout("4s").is_ok());
        assert!(count("0").is_err() && count("1").is_ok() && signing_sessions("65").is_err());
        assert!(status_lists("257").is_err() && status_lists("0").is_err() && status_lists("256").is_ok());
        assert!(status_list_ttl("1s").is_err() && status_list_ttl("3601s").is_err() && status_list_ttl("2s").is_ok());
    }

    #[test]
    fn token_claims_have_an_issuer_and_claims() {
        assert_eq!(
            token_claims("https://i?a=b=jti,uti"),
            Ok(("https://i?a=b".into(), vec!["jti".into(), "uti".into()]))
        );
        for bad in ["", "i", "i=", "=jti", "i=jti,"] {
            assert!(token_claims(bad).is_err(), "{bad}");
        }
    }
}
