//! What somebody has scheduled with Patroni, a switchover or a restart: when weir begins to prepare for it and how long it
//! believes in it. Patroni's clock is a calendar's, so weir has to be told what the calendar says.

use std::time::{Duration, Instant};

/// A calendar's time as what has passed since 1970-01-01 00:00 UTC.
pub(crate) type SinceEpoch = Duration;

/// When something is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub at: SinceEpoch,
    /// The same in Patroni's words.
    pub text: String,
}

impl Moment {
    /// In Patroni's spelling; `None` if that names no moment.
    pub(crate) fn parse(text: String) -> Option<Self> {
        Some(Self { at: since_epoch(&text)?, text })
    }

    /// From when on it is prepared for, and until when at the latest. `seen` is when `/cluster` last named it, `wall` what the
    /// calendar said at some moment.
    pub(crate) fn span(&self, seen: Instant, wall: (Instant, SinceEpoch)) -> Option<(Instant, Instant)> {
        let (then, said) = wall;
        let at = match self.at.checked_sub(said) {
            Some(ahead) => then.checked_add(ahead)?,
            None => then.checked_sub(said.saturating_sub(self.at))?,
        };
        Some((at.checked_sub(LEAD)?, (seen + BELIEVED).min(at + LATE_MAX)))
    }
}

/// What `/cluster` says of a switchover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub moment: Moment,
    pub from: Option<String>,
    pub to: Option<String>,
}

/// A scheduled switchover and what has become of it.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub scheduled: Scheduled,
    /// When `/cluster` last named it.
    pub seen: Instant,
    /// It has happened, or has been waited for in vain.
    pub is_over: bool,
}

impl Schedule {
    pub(crate) fn told(&self) -> String {
        let Scheduled { moment, from, to } = &self.scheduled;
        let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        format!("a switchover{from}{to} is scheduled for {}", moment.text)
    }
}

/// ISO 8601 with a zone, as Python writes it: `2026-11-21T14:30:00+00:00`, with a fraction of a second or without.
pub(crate) fn since_epoch(text: &str) -> Option<SinceEpoch> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix(['T', ' '])?;
    let [year, month, day] = numbers::<3>(date, '-')?;
    let (clock, zone) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at_checked(at)?,
        // Without a zone it names no moment.
        None => return None,
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = numbers::<3>(clock, ':')?;
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = seconds - zone_seconds(zone)?;
    let nanos = match fraction {
        "" => 0,
        digits if digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits:0<9}").parse().ok()?
        }
        _ => return None,
    };
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

fn zone_seconds(zone: &str) -> Option<i64> {
    let (sign, offset) = match zone.split_at_checked(1)? {
        ("Z", "") => return Some(0),
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let colon = offset.contains(':');
    let spelled =
        if colon { offset.to_owned() } else { format!("{}:{}", offset.get(..2)?, offset.get(2..)?) };
    let [hours, minutes] = numbers::<2>(&spelled, ':')?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn numbers<const N: usize>(text: &str, between: char) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for place in &mut found {
        let digits = parts.next().filter(|digits| matches!(digits.len(), 2 | 4))?;
        *place = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

/// Days from 1970-01-01 in the Gregorian calendar: years begin in March, so that the odd day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// So long before the time transactions begin to wait, so that those that run can end.
const LEAD: Duration = Duration::from_secs(1);

/// So long after `/cluster` last named it.
const BELIEVED: Duration = Duration::from_secs(5);

/// A leader that has not gone so long after the time is not going: Patroni waits for nothing.
const LATE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_patroni_s_spelling() {
        let seconds = |text: &str| since_epoch(text).map(|since| since.as_secs_f64());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(seconds("2001-09-09T01:46:40+00:00"), Some(1e9));
        assert_eq!(seconds("2001-09-09T03:46:40.250000+02:00"), Some(1e9 + 0.25));
        assert_eq!(seconds("2001-09-08 19:16:40-0630"), Some(1e9));
        assert_eq!(seconds("2024-02-29T12:00:00+00:00"), Some(1_709_208_000.0));
        assert_eq!(seconds("2024-03-01T12:00:00+00:00"), Some(1_709_294_400.0));
        for bad in [
            "",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-09-09T01:46+00:00",
            "2001-13-09T01:46:40Z",
            "2001-09-09T24:46:40Z",
            "2001-09-09T01:46:40+25:00",
            "2001-09-09T01:46:40.x+00:00",
            "1969-01-01T00:00:00Z",
            "2001-09-09T01:46:40+",
            "2001-09-09T01:46:40+0",
            "2001-0\u{e9}-09T01:46:40Z",
            "+001-09-09T01:46:40Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
