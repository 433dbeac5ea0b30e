//! Which callouts that Envoy refused to send are logged: the first few of each second, the others as a number.
use std::time::Duration;

use authn::time::Monotonic;

use crate::envoy::{self, LogLevel};

const WINDOW: Duration = Duration::from_secs(1);
const LOGGED_PER_WINDOW: u32 = 3;

#[derive(Debug, Default)]
pub struct CalloutLog {
    began: Option<Monotonic>,
    logged: u32,
    left_out: u64,
}

impl CalloutLog {
    pub fn refused(&mut self, cluster: &str, why: &str, now: Monotonic) {
        self.on_time(now);
        self.began.get_or_insert(now);
        if self.logged >= LOGGED_PER_WINDOW {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.logged = self.logged.saturating_add(1);
        envoy::log(LogLevel::Warn, &format!("portcullis: no callout to cluster `{cluster}`: {why}"));
    }

    /// When the window is over, the number of callouts that were left out is logged.
    pub fn on_time(&mut self, now: Monotonic) {
        if self.began.is_some_and(|began| now.since(began) >= WINDOW) {
            self.end();
        }
    }

    /// The window, or its configuration, is over.
    pub fn end(&mut self) {
        if self.left_out > 0 {
            let left_out = self.left_out;
            envoy::log(LogLevel::Warn, &format!("portcullis: {left_out} more callouts were refused, and not logged"));
        }
        *self = Self::default();
    }
}
