//! When streams that are open are ended.
use super::ConfigDuration;
use serde::Deserialize;

document! {
    /// The end of streams that are still open: upgrades, server-sent events, gRPC streams, any response that takes long
    /// (docs/streams.md).
    pub struct Streams {
        /// What ends a stream before it ends by itself.
        pub end_on: Vec<EndOn>,
        /// How long a stream stays open while the filter cannot tell whether its session was revoked; 5s to 1h. It has no
        /// effect on a rule with `dangerously_pass_when_unavailable`. Default: 30s.
        #[serde(default = "default_cannot_tell_for")]
        pub cannot_tell_for: ConfigDuration,
    }
}

choice! {
    /// What ends a stream.
    pub enum EndOn {
        /// Its token, session, user, client, signing key or issuer was revoked.
        Revoked,
        /// Its token expired, or its login became too old.
        Expired,
    }
}

fn default_cannot_tell_for() -> ConfigDuration {
    ConfigDuration::from_secs(30)
}
