//! Dates in HTTP headers, as far as every sender must write them: IMF-fixdate (RFC 9110 section 5.6.7).

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Days before each month of a year that is no leap year.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Seconds since 1970, of a text such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn seconds(text: &str) -> Option<u64> {
    let mut words = text.split(' ');
    let (_, day, month) = (words.next()?, number(words.next()?, 1, 31)?, words.next()?);
    let (year, time) = (number(words.next()?, 1970, 9999)?, words.next()?);
    if words.next()? != "GMT" || words.next().is_some() {
        return None;
    }
    let mut parts = time.split(':');
    let (hour, minute) = (number(parts.next()?, 0, 23)?, number(parts.next()?, 0, 59)?);
    // A leap second is counted as the next one.
    let second = number(parts.next()?, 0, 60)?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let leaps = |year: u64| (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let past = year.checked_sub(1)?;
    let leap_day = u64::from(month > 1 && leaps(year) > leaps(past));
    let days = year.checked_sub(1970)?.checked_mul(365)?.checked_add(leaps(past).checked_sub(leaps(1969))?)?;
    let days = days.checked_add(*DAYS_BEFORE.get(month)?)?.checked_add(leap_day)?.checked_add(day)?.checked_sub(1)?;
    let minutes = days.checked_mul(24)?.checked_add(hour)?.checked_mul(60)?.checked_add(minute)?;
    minutes.checked_mul(60)?.checked_add(second)
}

fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_form_that_everybody_must_write() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Sat, 28 Nov 2026 12:24:09 GMT", 1_795_868_649),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
