//! `spec.updateWindow`: the times in which pods are replaced without a user's change.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, schema};

/// A time of day on some days of the week, in UTC.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("duration(self.duration) <= duration('24h') && duration(self.duration) > duration('0s')",
     "updateWindow.duration must be above 0s and at most 24h"),
])))]
pub struct UpdateWindow {
    /// Days on which it begins; every day when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// When it begins, `HH:MM`, UTC.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// How long it lasts, beyond midnight if need be.
    pub duration: Span,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    const WEEK: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];
}

impl UpdateWindow {
    /// Whether it is open. A start that is no time of day is refused by the API server, and never opens here.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        let Ok(start) = Time::strptime("%H:%M", &self.start) else { return false };
        let Ok(lasts) = SignedDuration::try_from(self.duration.0) else { return false };
        let today = now.to_zoned(TimeZone::UTC).date();
        // It lasts a day at most: what began before yesterday is over.
        let began = [Some(today), today.yesterday().ok()];
        began.into_iter().flatten().any(|date| {
            let weekday = Day::WEEK.get(usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()));
            let on = self.days.is_empty() || weekday.is_some_and(|day| self.days.contains(day));
            let begins = date.to_datetime(start).to_zoned(TimeZone::UTC);
            on && begins.is_ok_and(|begins| {
                let since = now.duration_since(begins.timestamp());
                !since.is_negative() && since < lasts
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: &str, at: &str) -> bool {
        let window: UpdateWindow = serde_json::from_str(window).unwrap();
        window.is_open(at.parse().unwrap())
    }

    #[test]
    fn a_window_opens_at_its_start_and_ends_after_its_duration() {
        // 2026-11-02 is a Monday.
        let daily = r#"{"start": "02:00", "duration": "1h30m"}"#;
        for (at, expected) in
            [("01:59:59", false), ("02:00:00", true), ("03:29:59", true), ("03:30:00", false)]
        {
            assert_eq!(open(daily, &format!("2026-11-02T{at}Z")), expected, "{at}");
        }
    }

    #[test]
    fn a_window_belongs_to_the_day_on_which_it_begins() {
        let night = r#"{"days": ["Sat"], "start": "22:00", "duration": "6h"}"#;
        assert!(open(night, "2026-11-07T23:00:00Z"), "Saturday");
        assert!(open(night, "2026-11-08T03:59:00Z"), "Sunday morning");
        assert!(!open(night, "2026-11-08T04:00:00Z"));
        assert!(!open(night, "2026-11-08T23:00:00Z"), "Sunday night");
        assert!(!open(night, "2026-11-07T03:00:00Z"), "Saturday morning");
        let whole = r#"{"days": ["Sun"], "start": "00:00", "duration": "24h"}"#;
        assert!(open(whole, "2026-11-08T23:59:59Z") && !open(whole, "2026-11-09T00:00:00Z"));
    }

    #[test]
    fn a_start_that_is_no_time_of_day_never_opens() {
        assert!(!open(r#"{"start": "25:00", "duration": "24h"}"#, "2026-11-02T02:00:00Z"));
    }
}
