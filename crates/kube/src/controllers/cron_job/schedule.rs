//! When a CronJob is due. Pure.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::{SignedDuration, Timestamp};

/// Why a schedule cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScheduleError {
    #[error("unparseable schedule {text:?}")]
    Text {
        text: String,
        source: cronexpr::Error,
    },
    #[error("unparseable schedule {text:?}: the duration is not readable")]
    Duration { text: String },
    #[error("invalid timeZone: {zone:?}")]
    Zone { zone: String },
}

#[derive(Debug)]
pub(super) enum Schedule {
    Times(Box<Crontab>),
    /// `@every 1h30m`
    Every(SignedDuration),
}

/// Names that stand for a line of five fields.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Times are of the zone if there is one, else of UTC.
    pub(super) fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        if let Some(zone) = zone {
            jiff::tz::TimeZone::get(zone).map_err(|_| ScheduleError::Zone {
                zone: zone.to_owned(),
            })?;
        }
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every = every.trim().parse::<SignedDuration>().ok();
            // Upstream's shortest is a second, and it drops the rest.
            let every = every.filter(|every| every.as_secs() >= 1);
            let every = every.ok_or_else(|| ScheduleError::Duration {
                text: text.to_owned(),
            })?;
            return Ok(Self::Every(SignedDuration::from_secs(every.as_secs())));
        }
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let fields = named.map_or(text, |(_, fields)| fields);
        let mut line = fields.replace('?', "*");
        if let Some(zone) = zone {
            line = format!("{line} {zone}");
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        match cronexpr::parse_crontab_with(&line, options) {
            Ok(crontab) => Ok(Self::Times(Box::new(crontab))),
            Err(source) => Err(ScheduleError::Text {
                text: text.to_owned(),
                source,
            }),
        }
    }

    /// The first time after `time`, if there is one within four years.
    pub(super) fn next(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Times(crontab) => {
                let next = crontab.find_next(MakeTimestamp(time)).ok()?;
                Some(next.timestamp())
            }
            Self::Every(every) => {
                let whole = Timestamp::from_second(time.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
        }
    }

    /// The latest time after `earliest` and not after `now`, and about how many there were.
    pub(super) fn latest(&self, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, i64)> {
        let first = self.next(earliest).filter(|first| *first <= now)?;
        let second = self.next(first);
        let Some(second) = second.filter(|second| *second <= now) else {
            return Some((first, 1));
        };
        let step_s = second.duration_since(first).as_secs().max(1);
        let missed = now.duration_since(first).as_secs() / step_s + 1;
        if let Self::Every(_) = self {
            let whole = first + SignedDuration::from_secs((missed - 1) * step_s);
            return Some((whole, missed));
        }
        // Near the end first, so that a year of minutes is not walked through.
        let mut latest = second;
        for back_s in [120, 3_600, 86_400, 32 * 86_400, 366 * 86_400] {
            let from = now - SignedDuration::from_secs(back_s);
            let Some(mut time) = self.next(from.max(first)).filter(|time| *time <= now) else {
                continue;
            };
            loop {
                latest = latest.max(time);
                match self.next(time).filter(|time| *time <= now) {
                    Some(next) => time = next,
                    None => return Some((latest, missed)),
                }
            }
        }
        Some((latest, missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, zone: Option<&str>, from: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        crate::time::seconds(schedule.next(at(from)).unwrap())
    }

    #[test]
    fn a_schedule_tells_the_next_time_in_its_zone() {
        let cases = [
            (
                "*/5 * * * *",
                None,
                "2026-03-01T10:02:30Z",
                "2026-03-01T10:05:00Z",
            ),
            (
                "0 9 * * MON-FRI",
                None,
                "2026-03-06T09:00:00Z",
                "2026-03-09T09:00:00Z",
            ),
            (
                "0 9 ? * 1",
                None,
                "2026-03-06T09:00:00Z",
                "2026-03-09T09:00:00Z",
            ),
            (
                "@daily",
                None,
                "2026-03-01T10:02:30Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                "@every 90s",
                None,
                "2026-03-01T10:02:30Z",
                "2026-03-01T10:04:00Z",
            ),
            (
                "0 9 * * *",
                Some("Europe/Berlin"),
                "2026-03-01T10:00:00Z",
                "2026-03-02T08:00:00Z",
            ),
            (
                "0 9 * * *",
                Some("Europe/Berlin"),
                "2026-07-01T10:00:00Z",
                "2026-07-02T07:00:00Z",
            ),
            // The hour that the clock leaves out, and the one that it tells twice.
            (
                "30 2 * * *",
                Some("Europe/Berlin"),
                "2026-03-28T12:00:00Z",
                "2026-03-30T00:30:00Z",
            ),
            (
                "0 0 29 2 *",
                None,
                "2026-03-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
        ];
        for (schedule, zone, from, expected) in cases {
            assert_eq!(next(schedule, zone, from), expected, "{schedule} {zone:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        assert!(matches!(
            Schedule::parse("x", None),
            Err(ScheduleError::Text { .. })
        ));
        assert!(matches!(
            Schedule::parse("@every x", None),
            Err(ScheduleError::Duration { .. })
        ));
        let unknown = Schedule::parse("* * * * *", Some("Moon/Tycho"));
        assert!(matches!(unknown, Err(ScheduleError::Zone { .. })));
    }

    #[test]
    fn the_latest_of_many_missed_times_is_found_without_walking() {
        let latest = |schedule: &str, earliest: &str, now: &str| {
            let schedule = Schedule::parse(schedule, None).unwrap();
            let found = schedule.latest(at(earliest), at(now));
            found.map(|(time, missed)| (crate::time::seconds(time), missed))
        };
        let now = "2026-03-01T10:02:30Z";
        assert_eq!(latest("*/5 * * * *", "2026-03-01T10:00:00Z", now), None);
        let found = latest("* * * * *", "2025-03-01T10:02:00Z", now).unwrap();
        assert_eq!(found, ("2026-03-01T10:02:00Z".to_owned(), 525_600));
        let found = latest("0 0 1 1 *", "2023-03-01T10:02:00Z", now).unwrap();
        assert_eq!(found.0, "2026-01-01T00:00:00Z");
        let found = latest("@every 1h", "2026-03-01T00:00:00Z", now).unwrap();
        assert_eq!(found, ("2026-03-01T10:00:00Z".to_owned(), 10));
    }
}
