//! The metrics of the driver: their names, kinds and labels.
/// A family of metrics. Back ends define all of them when a configuration is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    Requests,
    TokenCache,
    SharedVerdicts,
    ChecksSent,
    ChecksFailed,
    RefreshedAhead,
    BindingMismatchesReported,
    Reported,
    SetCookies,
    SpoofedHeadersRemoved,
    MissingProxySettings,
    KeyFetches,
    Introspections,
    KeysAgeSeconds,
    WaitingRequests,
    Engine,
    Version,
    CheckMicroseconds,
    CheckTokens,
    IntrospectionMicroseconds,
    FeedPolls,
    FeedAnswers,
    FeedAgeMilliseconds,
    FeedBytes,
    RegionsLagMilliseconds,
    RegionsExceeded,
    StreamsOpen,
    StreamsEnded,
    Sightings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    pub const ALL: [Self; 29] = [
        Self::Requests,
        Self::TokenCache,
        Self::SharedVerdicts,
        Self::ChecksSent,
        Self::ChecksFailed,
        Self::RefreshedAhead,
        Self::BindingMismatchesReported,
        Self::Reported,
        Self::SetCookies,
        Self::SpoofedHeadersRemoved,
        Self::MissingProxySettings,
        Self::KeyFetches,
        Self::Introspections,
        Self::KeysAgeSeconds,
        Self::WaitingRequests,
        Self::Engine,
        Self::Version,
        Self::CheckMicroseconds,
        Self::CheckTokens,
        Self::IntrospectionMicroseconds,
        Self::FeedPolls,
        Self::FeedAnswers,
        Self::FeedAgeMilliseconds,
        Self::FeedBytes,
        Self::RegionsLagMilliseconds,
        Self::RegionsExceeded,
        Self::StreamsOpen,
        Self::StreamsEnded,
        Self::Sightings,
    ];

    /// Without the prefix `portcullis`, which every back end adds.
    pub const fn name(self) -> &'static str {
        self.describe().0
    }

    pub const fn kind(self) -> MetricKind {
        self.describe().1
    }

    /// The names of its labels.
    pub const fn labels(self) -> &'static [&'static str] {
        self.describe().2
    }

    const fn describe(self) -> (&'static str, MetricKind, &'static [&'static str]) {
        use MetricKind::{Counter, Gauge, Histogram};
        match self {
            Self::Requests => ("requests", Counter, &["outcome", "fault", "rule"]),
            Self::TokenCache => ("token_cache", Counter, &["result"]),
            Self::SharedVerdicts => ("shared_verdicts", Counter, &["result"]),
            Self::ChecksSent => ("checks_sent", Counter, &[]),
            Self::ChecksFailed => ("checks_failed", Counter, &["reason"]),
            Self::RefreshedAhead => ("refreshed_ahead", Counter, &[]),
            Self::BindingMismatchesReported => ("binding_mismatches_reported", Counter, &[]),
            Self::Reported => ("reported", Counter, &["fault", "rule"]),
            Self::SetCookies => ("set_cookies", Counter, &["result"]),
            Self::SpoofedHeadersRemoved => ("spoofed_headers_removed", Counter, &[]),
            Self::MissingProxySettings => ("missing_proxy_settings", Counter, &["reason"]),
            Self::KeyFetches => ("key_fetches", Counter, &["issuer", "result"]),
            Self::Introspections => ("introspections", Counter, &["issuer", "result"]),
            Self::KeysAgeSeconds => ("keys_age_seconds", Gauge, &["issuer"]),
            Self::WaitingRequests => ("waiting_requests", Gauge, &["reason"]),
            Self::Engine => ("engine", Gauge, &["kind"]),
            Self::Version => ("version", Gauge, &[]),
            Self::CheckMicroseconds => ("check_microseconds", Histogram, &[]),
            Self::CheckTokens => ("check_tokens", Histogram, &[]),
            Self::IntrospectionMicroseconds => ("introspection_microseconds", Histogram, &[]),
            Self::FeedPolls => ("feed_polls", Counter, &["result"]),
            Self::FeedAnswers => ("feed_answers", Counter, &["result"]),
            Self::FeedAgeMilliseconds => ("feed_age_milliseconds", Gauge, &[]),
            Self::FeedBytes => ("feed_bytes", Gauge, &[]),
            Self::RegionsLagMilliseconds => ("regions_lag_milliseconds", Gauge, &[]),
            Self::RegionsExceeded => ("regions_exceeded", Counter, &[]),
            Self::StreamsOpen => ("streams_open", Gauge, &[]),
            Self::StreamsEnded => ("streams_ended", Counter, &["reason"]),
            Self::Sightings => ("sightings", Counter, &["result"]),
        }
    }
}

/// A version as the gauge [`Metric::Version`] has it: 1002003 is 1.2.3. `None`: it has another form.
pub fn version_number(version: &str) -> Option<u64> {
    let (release, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let mut number = 0_u64;
    let mut parts = release.split('.');
    for _ in 0..3 {
        let part = parts.next()?.parse().ok().filter(|part| *part < 1000_u64)?;
        number = number.checked_mul(1000)?.checked_add(part)?;
    }
    parts.next().is_none().then_some(number)
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    Check,
    Introspection,
    Keys,
}

impl WaitsFor {
    pub const ALL: [WaitsFor; 3] = [WaitsFor::Check, WaitsFor::Introspection, WaitsFor::Keys];

    pub fn name(self) -> &'static str {
        match self {
            WaitsFor::Check => "check",
            WaitsFor::Introspection => "introspection",
            WaitsFor::Keys => "keys",
        }
    }
}
