//! Which refusals and ends of streams are logged: the first few of each window, the others as a number.
use std::time::Duration;

use authn::time::Monotonic;

use crate::counts::EndCause;
use crate::host::{Host, Level};

const WINDOW: Duration = Duration::from_millis(100);
/// Refusals logged with their cause in one window.
const LOGGED_PER_WINDOW: u32 = 10;

#[derive(Debug, Default)]
pub struct RejectionLog {
    began: Monotonic,
    logged: u32,
    left_out: u64,
}

impl RejectionLog {
    /// Logs a line at this level, which is made only if it is logged.
    pub fn rejected<H: Host>(
        &mut self,
        host: &mut H,
        level: Level,
        now: Option<Monotonic>,
        line: impl FnOnce() -> String,
    ) {
        if self.has_room(host, level, now) {
            host.log(level, format_args!("portcullis: refused {}", line()));
        }
    }

    /// The same for what is not enforced.
    pub fn reported<H: Host>(&mut self, host: &mut H, level: Level, now: Monotonic, line: impl FnOnce() -> String) {
        if self.has_room(host, level, Some(now)) {
            host.log(level, format_args!("portcullis: reported {}", line()));
        }
    }

    /// An open stream was ended.
    pub fn ended(&mut self, host: &mut impl Host, rule: &str, cause: EndCause, level: Level, now: Option<Monotonic>) {
        let (cause, code) = (cause.name(), cause.reason().code());
        if self.has_room(host, level, now) {
            host.log(
                level,
                format_args!("portcullis: ended {{\"code\":\"{code}\",\"rule\":\"{rule}\",\"cause\":\"{cause}\"}}"),
            );
        }
    }

    /// May one more line be logged in this window?
    fn has_room(&mut self, host: &mut impl Host, level: Level, now: Option<Monotonic>) -> bool {
        if let Some(now) = now {
            self.on_time(host, level, now);
        }
        let has_room = self.logged < LOGGED_PER_WINDOW;
        match has_room {
            true => self.logged = self.logged.saturating_add(1),
            false => self.left_out = self.left_out.saturating_add(1),
        }
        has_room
    }

    /// A new window begins when the last one is over. Then the number of omitted refusals is logged.
    pub fn on_time(&mut self, host: &mut impl Host, level: Level, now: Monotonic) {
        if now.since(self.began) < WINDOW {
            return;
        }
        self.began = now;
        self.logged = 0;
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            host.log(level, format_args!("portcullis: refused {{\"left_out\":{left_out}}}"));
        }
    }
}
