//! Times as text, to the second and without leap seconds (POSIX time).

/// 9999-12-31T23:59:59Z, the last second that has a text, in seconds since 1970.
pub(crate) const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds in a day.
const DAY: i64 = 86_400;
/// Days in 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// `seconds` since 1970-01-01 UTC as `YYYY-MM-DDThh:mm:ssZ`; later times than that has room for as the last one.
#[must_use]
pub fn format_time(seconds: u64) -> String {
    let seconds = seconds.min(LAST_SECOND).cast_signed();
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a time of RFC 3339 and returns its seconds since 1970-01-01 UTC. Parts of a second are cut off. A leap second
/// counts as the first second after it, as POSIX time has it; it is taken where one can be, at the end of a month.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_time(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a time such as 2026-01-31T12:00:00Z or 2026-01-31T20:00:00+08:00";
    let (local, offset) = text
        .is_ascii()
        .then(|| text.split_at_checked("2026-01-31T12:00:00".len()))
        .flatten()
        .ok_or(EXPECTED)?;
    let [year, month, day, hour, minute, second] = fields(local).ok_or(EXPECTED)?;
    let offset = offset_of(after_fraction(offset).ok_or(EXPECTED)?).ok_or(EXPECTED)?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return Err("there is no such day");
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err("there is no such time of day");
    }
    let utc = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    // What comes at the end of a month in UTC is followed by its first day.
    if second == 60 && (utc % DAY != 0 || date(utc.div_euclid(DAY)).2 != 1) {
        return Err("there can be no leap second at this time");
    }
    match u64::try_from(utc) {
        Ok(utc) if utc <= LAST_SECOND => Ok(utc),
        _ => Err("the time is not from 1970 to 9999"),
    }
}

/// Reads what [`format_time`] writes, and nothing else.
pub(crate) fn parse_utc(text: &str) -> Option<u64> {
    parse_time(text)
        .ok()
        .filter(|seconds| format_time(*seconds) == text)
}

/// The numbers in `YYYY-MM-DDThh:mm:ss`.
fn fields(local: &str) -> Option<[i64; 6]> {
    let local = local.as_bytes();
    let at = |index: usize, expected: &[u8]| local.get(index).is_some_and(|byte| expected.contains(byte));
    let separated = at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":");
    let number = |from: usize, to: usize| digits(local.get(from..to)?);
    separated.then_some(())?;
    Some([
        number(0, 4)?,
        number(5, 7)?,
        number(8, 10)?,
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
    ])
}

/// What follows a fraction of a second, where there is one.
fn after_fraction(text: &str) -> Option<&str> {
    match text.strip_prefix('.') {
        None => Some(text),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            (end > 0).then(|| &rest[end..])
        }
    }
}

/// The seconds in `Z`, `+hh:mm` or `-hh:mm`.
fn offset_of(text: &str) -> Option<i64> {
    match text.as_bytes() {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let offset = hours * 3600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'+' { offset } else { -offset })
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date. Years are counted from March, so that the leap day is a year's last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - EPOCH
}

/// Year, month and day of the date `days` after 1970-01-01.
const fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let of_era = days.rem_euclid(ERA);
    // Without the leap days before it, every year has 365 days.
    let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (of_era_year * 365 + of_era_year / 4 - of_era_year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = days.div_euclid(ERA) * 400 + of_era_year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            // RFC 3339, section 5.8, the last one without its leap second.
            (482_196_050, "1985-04-12T23:20:50Z"),
            (851_042_397, "1996-12-20T00:39:57Z"),
            (662_688_000, "1991-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(format_time(seconds), text);
            assert_eq!(parse_time(text), Ok(seconds));
            assert_eq!(parse_utc(text), Some(seconds));
        }
        assert_eq!(format_time(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn zones_fractions_and_leap_seconds() {
        for (text, utc) in [
            // RFC 3339, section 5.8.
            ("1985-04-12T23:20:50.52Z", "1985-04-12T23:20:50Z"),
            ("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57Z"),
            ("1990-12-31T23:59:60Z", "1991-01-01T00:00:00Z"),
            ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"),
            ("1937-01-01T12:00:27.87+00:20", ""),
            ("2016-12-31t23:59:60z", "2017-01-01T00:00:00Z"),
            ("2016-12-31 23:59:59-00:00", "2016-12-31T23:59:59Z"),
            ("2017-01-01T08:59:60.9+09:00", "2017-01-01T00:00:00Z"),
            ("2026-03-01T00:00:00+23:59", "2026-02-28T00:01:00Z"),
            ("2024-02-29T23:59:60Z", "2024-03-01T00:00:00Z"),
            ("1970-01-01T00:00:00+00:01", ""),
            ("9999-12-31T23:59:59-00:01", ""),
            ("9999-12-31T23:59:60Z", ""),
        ] {
            assert_eq!(parse_time(text).map_or(String::new(), format_time), utc, "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0800",
            "2026-01-31T12:00:00+08",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+08:60",
            "2026-01-31T12:00:00Z ",
            " 2026-01-31T12:00:00Z",
            "+026-01-31T12:00:00Z",
            "2026-1-31T12:00:00Z",
            "2026-00-31T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T23:59:61Z",
            // No leap second: not the end of a month, not the end of the day, not in UTC.
            "2026-01-30T23:59:60Z",
            "2026-01-31T12:59:60Z",
            "2026-01-31T23:58:60Z",
            "2016-12-31T23:59:60+01:00",
            "2026-01-31T12:00:0\u{661}Z",
            "\u{ff12}026-01-31T12:00:00Z",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_text_for_each_second() {
        for text in [
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T12:00:00.0Z",
            "2026-01-31t12:00:00Z",
            "2026-01-31T12:00:00z",
            "2026-01-31 12:00:00Z",
            "2016-12-31T23:59:60Z",
        ] {
            assert!(parse_time(text).is_ok());
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    /// Day by day from 1970 to 9999, against counting.
    #[test]
    fn every_day() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for n in 0..=LAST_SECOND.cast_signed() / DAY {
            assert_eq!(date(n), (year, month, day));
            assert_eq!(days(year, month, day), n);
            day += 1;
            if day > days_in(year, month) {
                day = 1;
                month += 1;
            }
            if month > 12 {
                month = 1;
                year += 1;
            }
        }
        assert_eq!(year, 10_000);
    }
}
