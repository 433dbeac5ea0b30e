//! This machine: its random numbers, and its clock beside those of others.
use std::fs::File;
use std::io::Read as _;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::{Finding, Report, Severity};

/// A kernel that has collected enough reports 256. Older ones report less while they collect.
const LEAST_ENTROPY: u32 = 128;
const RANDOM_WAIT: Duration = Duration::from_secs(1);
/// A `Date` has whole seconds, and the answer was under way.
const DATE_TOLERANCE_MILLIS: i64 = 2000;

pub fn entropy(report: &mut Report) {
    let available = std::fs::read_to_string("/proc/sys/kernel/random/entropy_avail");
    let available = available.ok().and_then(|text| text.trim().parse::<u32>().ok());
    let (sender, receiver) = mpsc::channel();
    // It may block for ever; the process does not wait for it at its end.
    std::thread::spawn(move || {
        let read = File::open("/dev/random").and_then(|mut file| file.read_exact(&mut [0; 32]));
        let _ = sender.send(read.is_ok());
    });
    let comes = receiver.recv_timeout(RANDOM_WAIT) == Ok(true);
    match available {
        _ if !comes => found_entropy(report, format!("/dev/random gave nothing within {RANDOM_WAIT:?}")),
        Some(bits) if bits < LEAST_ENTROPY => found_entropy(report, format!("the kernel has {bits} bits of entropy")),
        Some(bits) => report.passed("entropy", format!("{bits} bits, and /dev/random answers")),
        None => report.passed("entropy", "/dev/random answers"),
    }
}

fn found_entropy(report: &mut Report, what: String) {
    report.found(Finding {
        name: "entropy",
        severity: Severity::Error,
        what: format!("this machine lacks randomness: {what}"),
        why: "nonces, session ids and TLS need random numbers; the service waits for them, or does not start",
        mend: "give virtual machines a virtio-rng device, or run rngd or haveged".to_owned(),
        link: "docs/operations.md#the-doctor".to_owned(),
    });
}

/// `ahead`: another clock minus ours. `tolerance`: what filter and service allow.
pub fn clock(report: &mut Report, whose: &str, ahead_millis: i64, tolerance: Duration) {
    let tolerance = i64::try_from(tolerance.as_millis()).unwrap_or(i64::MAX);
    let off = ahead_millis.saturating_abs();
    if off <= DATE_TOLERANCE_MILLIS.min(tolerance) {
        return report.passed("clock", format!("of {whose}: within {off} ms of this machine's"));
    }
    let direction = if ahead_millis > 0 { "ahead of" } else { "behind" };
    report.found(Finding {
        name: "clock_drift",
        severity: if off > tolerance { Severity::Error } else { Severity::Warning },
        what: format!("the clock of {whose} is {:.1} s {direction} this machine's", off as f64 / 1000.0),
        why: "tokens are judged by Envoy's clock and revocations by the service's: expired tokens pass, or good ones are refused",
        mend: "compare each clock with a third one, and let chrony or systemd-timesyncd keep them all".to_owned(),
        link: "docs/faults.md#jwt_not_yet_valid".to_owned(),
    });
}

/// The header of an answer that has just come.
pub fn date(report: &mut Report, whose: &str, date: Option<Vec<u8>>, tolerance: Duration) {
    let date = date.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(theirs) = date.and_then(|text| authn::keys::http_date::seconds(text.trim())) {
        // The middle of its second.
        let theirs = i64::try_from(theirs).unwrap_or(i64::MAX).saturating_mul(1000).saturating_add(500);
        clock(report, whose, theirs.saturating_sub(millis()), tolerance);
    }
}

pub fn millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
