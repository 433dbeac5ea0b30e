//! Points in time in the forms that users write: seconds since 1970, RFC 3339, `now`, or how long ago.
use std::time::{SystemTime, UNIX_EPOCH};

use authn::time::UnixSeconds;

/// # Errors
/// None of the three forms, or before 1970.
pub fn parse(text: &str) -> Result<UnixSeconds, String> {
    let wrong = || format!("`{text}` is not seconds since 1970, a time such as 2026-01-31T23:59:59Z, or now");
    if text == "now" {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| "the clock is before 1970")?;
        return Ok(UnixSeconds(since.as_secs()));
    }
    if let Ok(seconds) = text.parse() {
        return Ok(UnixSeconds(seconds));
    }
    rfc3339(text).and_then(|seconds| u64::try_from(seconds).ok()).map(UnixSeconds).ok_or_else(wrong)
}

/// As [`parse`], or so long ago.
///
/// # Errors
/// None of these forms.
pub fn since(text: &str) -> Result<UnixSeconds, String> {
    match wire::parse_duration(text) {
        Ok(ago) => Ok(UnixSeconds(parse("now")?.0.saturating_sub(ago.as_secs()))),
        Err(_) => parse(text)
            .map_err(|_| format!("`{text}` is not a duration such as 24h, nor a time such as 2026-01-31T23:59:59Z")),
    }
}

/// RFC 3339 section 5.6; a fraction of a second is dropped.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month, day) = three(date, '-')?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let (hour, minute, second) = three(clock, ':')?;
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes, _) = three(&format!("{}:00", zone.strip_prefix(['+', '-'])?), ':')?;
            (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))?
        }
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970-01-01, with a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 153 + 2) / 5 + day;
    Some((days - 719_469) * 86_400 + hour * 3_600 + minute * 60 + second - offset)
}

/// Digits of the usual widths, separated by `separator`.
fn three(text: &str, separator: char) -> Option<(i64, i64, i64)> {
    let mut parts = text.split(separator).map(|part| {
        let is_number = (part.len() == 2 || part.len() == 4) && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<i64>().ok()).flatten()
    });
    let three = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(three)
}

/// Unix seconds in RFC 3339 form, in UTC. Days to the civil calendar, after Hinnant.
pub fn date(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March, so that the leap day is the last day of the year.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), shown);
        }
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now = parse("now").unwrap().0;
        let day_ago = since("24h").unwrap().0;
        assert!((now - 86_400..now - 86_390).contains(&day_ago), "{day_ago}");
        assert_eq!(since("2025-06-15T15:06:40Z").map(|time| time.0), Ok(1_750_000_000));
        assert!(since("yesterday").unwrap_err().contains("24h"));
    }

    #[test]
    fn reads_each_form_and_refuses_the_rest() {
        let at = |text| parse(text).ok().map(|time| time.0);
        assert_eq!(at("1750000000"), Some(1_750_000_000));
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2025-06-15T15:06:40Z"), Some(1_750_000_000));
        assert_eq!(at("2025-06-15T17:06:40.75+02:00"), Some(1_750_000_000));
        assert_eq!(at("2025-06-15T09:36:40-05:30"), Some(1_750_000_000));
        assert_eq!(at("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        assert_eq!(at("2000-03-01T00:00:00Z"), Some(951_868_800));
        for bad in [
            "",
            "tomorrow",
            "-1",
            "2025-02-29T00:00:00Z",
            "2025-06-15",
            "2025-06-15T15:06:40",
            "2025-06-15T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2025-06-15T15:06:40.Z",
            "2025-06-15T15:06:40+1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
