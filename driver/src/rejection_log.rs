//! Which rejections are logged: the first few of each window with their cause, the others as a number.
use std::time::Duration;

use authn::reject::Rejection;
use authn::time::Monotonic;

use crate::host::{Host, Level};

const WINDOW: Duration = Duration::from_millis(100);
/// Rejections logged with their cause in one window.
const LOGGED_PER_WINDOW: u32 = 10;

#[derive(Debug, Default)]
pub struct RejectionLog {
    began: Monotonic,
    logged: u32,
    left_out: u64,
}

impl RejectionLog {
    pub fn rejected(&mut self, host: &mut impl Host, rule: &str, rejection: &Rejection, now: Option<Monotonic>) {
        self.log(host, "refused", rule, rejection, now);
    }

    /// It would be a rejection if it were enforced.
    pub fn reported(&mut self, host: &mut impl Host, rule: &str, rejection: &Rejection, now: Monotonic) {
        self.log(host, "reported", rule, rejection, Some(now));
    }

    fn log(&mut self, host: &mut impl Host, word: &str, rule: &str, rejection: &Rejection, now: Option<Monotonic>) {
        if let Some(now) = now {
            self.on_time(host, now);
        }
        if self.logged >= LOGGED_PER_WINDOW {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.logged = self.logged.saturating_add(1);
        let level = if rejection.reason.is_cannot_tell() { Level::Warn } else { Level::Info };
        let (code, cause) = (rejection.reason.code(), rejection.cause);
        match &rejection.detail {
            None => host.log(level, format_args!("portcullis: {word} code={code} rule={rule} cause=\"{cause}\"")),
            Some(detail) => host.log(
                level,
                format_args!("portcullis: {word} code={code} rule={rule} cause=\"{cause}\" detail={detail:?}"),
            ),
        }
    }

    /// A new window begins when the last one is over. Then the number of omitted rejections is logged.
    pub fn on_time(&mut self, host: &mut impl Host, now: Monotonic) {
        if now.since(self.began) < WINDOW {
            return;
        }
        self.began = now;
        self.logged = 0;
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            host.log(Level::Info, format_args!("portcullis: {left_out} more refusals were not logged"));
        }
    }
}
