//! Defaults that several sections share.
use super::ConfigDuration;

pub(super) fn default_true() -> bool {
    true
}

pub(super) fn default_check_timeout() -> ConfigDuration {
    ConfigDuration::from_millis(500)
}

pub(super) fn default_freshness() -> ConfigDuration {
    ConfigDuration::from_secs(2)
}
