//! One answer of a provider, read as far as fetching keys needs it: what it brought, or why it brought nothing and when to
//! ask again.
use std::time::Duration;

use jose::printable;

use crate::keys::http_date;

/// An answer's status, body and the headers that count here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer<'r> {
    pub status: u16,
    pub body: &'r [u8],
    pub cache_control: Option<&'r str>,
    pub etag: Option<&'r str>,
    pub retry_after: Option<&'r str>,
    pub date: Option<&'r str>,
    pub content_encoding: Option<&'r str>,
    pub location: Option<&'r str>,
}

/// Why an answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    pub retry_after: Option<Duration>,
    /// The URL itself may be wrong: whoever took it from a discovery document had better read that again.
    pub is_of_url: bool,
}

/// A longer one is not sent back.
const MAX_ETAG_BYTES: usize = 256;

impl<'r> Answer<'r> {
    /// The body of a 200.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn content(&self) -> Result<&'r [u8], Failure> {
        if self.status != 200 {
            return Err(self.failure(self.status_says(), !matches!(self.status, 429 | 500..)));
        }
        match self.content_encoding {
            None => Ok(self.body),
            Some(coding) if coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity") => Ok(self.body),
            Some(coding) => {
                let coding = printable(coding);
                let why = format!("it is encoded as {coding}, though only `identity` was asked for and is read");
                Err(self.failure(why, false))
            }
        }
    }

    pub fn failure(&self, why: String, is_of_url: bool) -> Failure {
        Failure { why, retry_after: self.retry_after(), is_of_url }
    }

    fn status_says(&self) -> String {
        let status = self.status;
        match (status, self.location) {
            (300..=399, Some(location)) => {
                format!("status {status}, a redirect to {}: none is followed", printable(location))
            }
            (300..=399, None) => format!("status {status}: redirects are not followed"),
            (401 | 403, _) => format!("status {status}: the provider wants credentials, and the filter sends none"),
            (404 | 410, _) => format!("status {status}: nothing is published under this URL"),
            (429, _) => format!("status {status}: the provider wants fewer requests"),
            (503, _) => {
                format!("status {status}: the provider, or the proxy for it, cannot be reached or is unavailable")
            }
            (504, _) => format!("status {status}: no answer came in time"),
            _ => format!("status {status}"),
        }
    }

    /// Seconds, or a date by the sender's own clock (RFC 9110 section 10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        let text = self.retry_after?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let (at, sent) = (http_date::seconds(text)?, http_date::seconds(self.date?.trim())?);
        Some(Duration::from_secs(at.saturating_sub(sent)))
    }

    /// For how long the sender says that its answer is good. `no-cache` and the like ask caches to look again before each
    /// use; they say nothing of how long keys are good.
    pub fn max_age(&self) -> Option<Duration> {
        self.cache_control.and_then(max_age).filter(|age| !age.is_zero())
    }

    /// To be sent back with the next request (RFC 9110 section 8.8.3).
    pub fn etag(&self) -> Option<&'r str> {
        let is_fit = |etag: &&str| {
            (1..=MAX_ETAG_BYTES).contains(&etag.len()) && etag.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        };
        self.etag.map(str::trim).filter(is_fit)
    }
}

/// `max-age` of a Cache-Control value (RFC 9111 section 5.2.2.1); zero for `no-store` and `no-cache`.
pub fn max_age(cache_control: &str) -> Option<Duration> {
    let mut age = None;
    for directive in cache_control.split(',') {
        let directive = directive.trim();
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.trim().eq_ignore_ascii_case("max-age")
        {
            age = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_200_has_content_and_all_else_has_a_cause() {
        let of = |status| Answer { status, body: b"{}", ..Answer::default() };
        assert_eq!(of(200).content(), Ok(b"{}".as_slice()));
        for coding in ["identity", "Identity", ""] {
            assert!(Answer { content_encoding: Some(coding), ..of(200) }.content().is_ok());
        }
        let gzip = Answer { content_encoding: Some("gzip"), ..of(200) }.content().unwrap_err();
        assert!(gzip.why.contains("encoded as gzip"), "{gzip:?}");
        for (status, says, is_of_url) in [
            (204, "status 204", true),
            (302, "status 302: redirects are not", true),
            (401, "status 401: the provider wants credentials", true),
            (404, "status 404: nothing is published", true),
            (429, "status 429: the provider wants fewer", false),
            (500, "status 500", false),
            (503, "status 503", false),
            (504, "status 504: no answer", false),
        ] {
            let failure = of(status).content().unwrap_err();
            assert!(failure.why.starts_with(says), "{failure:?}");
            assert_eq!((failure.is_of_url, failure.retry_after), (is_of_url, None), "{status}");
        }
        let moved = Answer { location: Some("https://elsewhere.example/\nx"), ..of(302) }.content().unwrap_err();
        assert_eq!(moved.why, "status 302, a redirect to https://elsewhere.example/?x: none is followed");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_of_the_same_clock() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (retry_after, date, expected) in [
            (Some("120"), None, Some(120)),
            (Some(" 0 "), None, Some(0)),
            (Some("99999999999999999999999"), None, Some(u64::MAX)),
            (Some("Sun, 06 Nov 1994 08:50:07 GMT"), date, Some(30)),
            (Some("Sun, 06 Nov 1994 08:00:00 GMT"), date, Some(0)),
            (Some("Sun, 06 Nov 1994 08:50:07 GMT"), None, None),
            (Some("-1"), date, None),
            (Some("1.5"), date, None),
            (Some(""), date, None),
            (None, date, None),
        ] {
            let answer = Answer { status: 429, retry_after, date, ..Answer::default() };
            let failure = answer.content().unwrap_err();
            assert_eq!(failure.retry_after, expected.map(Duration::from_secs), "{retry_after:?}");
        }
    }

    #[test]
    fn no_cache_says_nothing_of_how_long_keys_are_good() {
        let age = |text| Answer { cache_control: Some(text), ..Answer::default() }.max_age();
        assert_eq!(age("public, max-age=60"), Some(Duration::from_secs(60)));
        for none in ["no-cache", "no-store", "max-age=0, must-revalidate", "private", "no-cache, max-age=60"] {
            assert_eq!(age(none), None, "{none}");
        }
    }

    #[test]
    fn an_etag_that_could_break_a_request_is_not_sent_back() {
        let etag = |text| Answer { etag: Some(text), ..Answer::default() }.etag();
        assert_eq!(etag("W/\"1a\""), Some("W/\"1a\""));
        let long = "x".repeat(MAX_ETAG_BYTES + 1);
        for bad in ["", " ", "\"a\r\nb\"", "\"a b\"", "\"\u{e9}\"", &long] {
            assert_eq!(etag(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn max_age_is_read_and_nothing_else_is_taken_for_it() {
        assert_eq!(max_age("public, max-age=60"), Some(Duration::from_secs(60)));
        assert_eq!(max_age("Max-Age=\"5\""), Some(Duration::from_secs(5)));
        assert_eq!(max_age("max-age=60, no-store"), Some(Duration::ZERO));
        for none in ["", "s-maxage=5", "max-age", "max-age=-1", "max-age=x"] {
            assert_eq!(max_age(none), None, "{none}");
        }
    }
}
