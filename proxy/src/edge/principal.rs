//! Who sent a request, where keys are asked for: what it may do, and what it uses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Limits;
use crate::edge::account::{Account, Place};
use crate::edge::quota::{Rate, Used, until_tomorrow};
use crate::edge::shared::{Answer, Ask};
use crate::edge::usage::{Amount, Export, Line};
use crate::edge::{RequestId, unix_millis};
use crate::error::{Refused, Unit};
use crate::keys::Holder;
use crate::net::permits::{Permit, Permits};

/// Who sent a request.
pub struct Principal {
    holder: Arc<Holder>,
    limits: Limits,
    account: Arc<Account>,
    export: Arc<Export>,
}

impl fmt::Debug for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Principal").field("name", &self.holder.name).finish_non_exhaustive()
    }
}

impl Principal {
    /// The holder of a key, with the limits that count for it.
    pub(super) fn new(
        holder: Arc<Holder>,
        limits: Limits,
        account: Arc<Account>,
        export: Arc<Export>,
    ) -> Self {
        Self { holder, limits, account, export }
    }

    /// Whose key it is: what logs and metrics show.
    pub fn name(&self) -> &Arc<str> {
        &self.holder.name
    }

    /// Its tier.
    pub fn tier(&self) -> Option<&str> {
        self.holder.tier.as_deref()
    }

    /// Whether it may see the usage of all names and change keys.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub fn may_administer(&self) -> Result<(), Refused> {
        if self.holder.scopes.admin { Ok(()) } else { Err(Refused::Scope { what: "administer keys".into() }) }
    }

    /// Whether it may use a model, by its id in lists or by the name that the client gave.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub fn may_use(&self, id: &str, name: Option<&str>) -> Result<(), Refused> {
        let models = &self.holder.scopes.models;
        if models.is_empty() || models.iter().any(|model| model == id || Some(model.as_str()) == name) {
            return Ok(());
        }
        Err(Refused::Scope { what: format!("use the model '{id}'") })
    }

    /// Whether its work may go to engines of others.
    pub fn may_use_hosted(&self) -> bool {
        !self.holder.scopes.own_engines
    }

    /// Whether it may speak a client dialect.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub(super) fn may_speak(&self, dialect: &str) -> Result<(), Refused> {
        let dialects = &self.holder.scopes.dialects;
        if dialects.is_empty() || dialects.iter().any(|known| known == dialect) {
            return Ok(());
        }
        Err(Refused::Scope { what: format!("use this path: it speaks {dialect}") })
    }

    /// Signs a text that counts as this caller's key for sessions until `expires`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused::Scope`]: it is no key but a token.
    pub fn sign(&self, text: &str, expires: u64) -> Result<String, Refused> {
        let what = "make client secrets: it is a token, which sessions take as it is";
        self.holder.sign(text, expires).ok_or_else(|| Refused::Scope { what: what.into() })
    }

    /// Counts a request at `now`, milliseconds of Unix time. Returns what is left of a minute's, if they are limited.
    ///
    /// # Errors
    /// [`Refused::Requests`].
    pub fn request(&self, now: u64) -> Result<Option<Rate>, Refused> {
        let mut state = self.account.state.lock();
        let rate = match self.limits.requests_per_minute {
            Some(limit) => Some(
                state
                    .bucket
                    .take(limit, now)
                    .map_err(|retry_after| self.counted(Refused::Requests { limit, retry_after }))?,
            ),
            None => None,
        };
        state.ledger.request(now);
        drop(state);
        self.account.series.requests.inc();
        Ok(rate)
    }

    /// A place among the requests of this name that cost engine time, of so many of all names.
    ///
    /// # Errors
    /// [`Refused::Jobs`].
    pub(super) fn job(&self, of_all: usize) -> Result<Place, Refused> {
        let taken = take(&self.account.jobs, self.limits.jobs, of_all);
        let permit = taken.map_err(|limit| self.counted(Refused::Jobs { limit }))?;
        Ok(Place::new(permit, &self.account))
    }

    /// Whether other gateways leave room for the request and the place that this one has counted. Returns what is left of a
    /// minute's requests, if they are limited and the others are known.
    ///
    /// # Errors
    /// [`Refused::Requests`], [`Refused::Jobs`].
    pub(super) async fn job_of_all(&self) -> Result<Option<Rate>, Refused> {
        let ask = self.limits.jobs.map_or(Ask::Nothing, Ask::Job);
        self.agreed(self.limits.requests_per_minute, ask).await
    }

    /// As [`Principal::job_of_all`], for a session.
    ///
    /// # Errors
    /// [`Refused::Requests`], [`Refused::Streams`].
    pub async fn stream_of_all(&self) -> Result<(), Refused> {
        let ask = self.limits.streams.map_or(Ask::Nothing, Ask::Stream);
        self.agreed(self.limits.requests_per_minute, ask).await.map(|_| ())
    }

    /// Whether other gateways leave an amount of the day that this one has set aside.
    ///
    /// # Errors
    /// [`Refused::Day`].
    pub(super) async fn day_of_all(&self, unit: Unit, amount: f64) -> Result<(), Refused> {
        let ask = self.a_day(unit).map_or(Ask::Nothing, |limit| Ask::Day(unit, amount, limit));
        self.agreed(None, ask).await.map(|_| ())
    }

    async fn agreed(&self, rate: Option<u32>, ask: Ask) -> Result<Option<Rate>, Refused> {
        let Some(shared) = &self.account.shared else { return Ok(None) };
        if rate.is_none() && ask == Ask::Nothing {
            return Ok(None);
        }
        match (shared.ask(&self.account, rate, ask).await, ask) {
            (Answer::Granted(rate), _) => Ok(rate),
            (Answer::TooManyRequests(retry_after), _) => {
                Err(self.counted(Refused::Requests { limit: rate.unwrap_or_default(), retry_after }))
            }
            (Answer::UsedUp, Ask::Job(limit)) => Err(self.counted(Refused::Jobs { limit })),
            (Answer::UsedUp, Ask::Stream(limit)) => Err(self.counted(Refused::Streams { limit })),
            (Answer::UsedUp, Ask::Day(unit, ..)) => Err(self.used_up(unit, until_tomorrow(unix_millis()))),
            (Answer::UsedUp, Ask::Nothing) | (Answer::Unreachable, _) => Ok(None),
        }
    }

    /// A place among the sessions of this name, of so many of all names.
    ///
    /// # Errors
    /// [`Refused::Streams`].
    pub fn stream(&self, of_all: usize) -> Result<Place, Refused> {
        let taken = take(&self.account.streams, self.limits.streams, of_all);
        let permit = taken.map_err(|limit| self.counted(Refused::Streams { limit }))?;
        Ok(Place::new(permit, &self.account))
    }

    /// Sets an amount aside at `now`, milliseconds of Unix time.
    ///
    /// # Errors
    /// [`Refused::Day`].
    pub(super) fn reserve(&self, unit: Unit, amount: f64, now: u64) -> Result<(), Refused> {
        let reserved = self.account.state.lock().ledger.reserve(unit, amount, self.a_day(unit), now);
        reserved.map_err(|retry_after| self.used_up(unit, retry_after))
    }

    /// Gives back what was set aside.
    pub(super) fn release(&self, unit: Unit, amount: f64) {
        self.account.state.lock().ledger.release(unit, amount);
        self.account.changed();
    }

    /// Counts what work took, at `now`, milliseconds of Unix time.
    ///
    /// # Errors
    /// [`Refused::Day`]: no more is to be had today. It is counted all the same.
    pub fn spend(&self, request_id: &RequestId, unit: Unit, amount: f64, now: u64) -> Result<(), Refused> {
        let spent = self.account.state.lock().ledger.spend(unit, amount, self.a_day(unit), now);
        self.account.changed();
        match unit {
            Unit::AudioSeconds => self.account.series.audio_seconds.inc_by(amount),
            Unit::Characters => self.account.series.characters.inc_by(amount),
        }
        if amount > 0.0 {
            self.export.send(|| Line {
                time: Timestamp::from_millisecond(i64::try_from(now).unwrap_or_default()).unwrap_or_default(),
                request_id: request_id.as_str().to_owned(),
                key: self.holder.name.to_string(),
                key_id: self.holder.id.clone(),
                amount: Amount::of(unit, amount),
            });
        }
        spent.map_err(|retry_after| self.used_up(unit, retry_after))
    }

    /// Its limits, what was used by day, and what runs.
    pub fn usage(&self) -> Usage {
        Usage { limits: Some(self.limits), ..Usage::of(&self.account) }
    }

    /// What may be used of a unit in a day.
    fn a_day(&self, unit: Unit) -> Option<f64> {
        match unit {
            Unit::AudioSeconds => self.limits.audio_minutes_per_day.map(|minutes| minutes * 60.0),
            Unit::Characters => self.limits.characters_per_day.map(|characters| characters as f64),
        }
    }

    fn used_up(&self, unit: Unit, retry_after: Duration) -> Refused {
        self.counted(Refused::Day { unit, limit: self.a_day(unit).unwrap_or_default(), retry_after })
    }

    fn counted(&self, refused: Refused) -> Refused {
        if let Some(quota) = refused.quota() {
            self.account.series.refusals.with_label_values(&[quota]).inc();
        }
        refused
    }
}

/// Takes a place within a limit, and within three quarters of the places of all names: the rest is for others.
fn take(permits: &Permits, limit: Option<u32>, of_all: usize) -> Result<Permit, u32> {
    let share = u32::try_from(of_all - of_all / 4).unwrap_or(u32::MAX).max(1);
    let limit = limit.map_or(share, |limit| limit.min(share));
    permits.take(usize::try_from(limit).unwrap_or(usize::MAX)).ok_or(limit)
}

/// What a name has used, as this gateway counted since its start.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    /// By day of UTC, the newest first.
    days: Vec<Day>,
    /// Requests that run.
    jobs: usize,
    /// Sessions that are open.
    streams: usize,
}

#[derive(Debug, Serialize)]
struct Day {
    date: jiff::civil::Date,
    requests: u64,
    audio_seconds: f64,
    characters: f64,
}

impl Usage {
    /// That of an account.
    pub(super) fn of(account: &Account) -> Self {
        let day = |(number, used): (u64, Used)| {
            let start = Timestamp::from_second(i64::try_from(number * 86_400).unwrap_or_default());
            Day {
                date: start.unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date(),
                requests: used.requests,
                audio_seconds: (used.audio_seconds * 1000.0).round() / 1000.0,
                characters: used.characters,
            }
        };
        let days = account.state.lock().ledger.days().map(day).collect();
        Self { limits: None, days, jobs: account.jobs.taken(), streams: account.streams.taken() }
    }

    /// Minutes of audio that were heard today, and sessions that are open.
    pub fn now(&self) -> (f64, usize) {
        let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = self.days.first().filter(|day| day.date == today);
        (day.map_or(0.0, |day| day.audio_seconds / 60.0), self.streams)
    }

    /// What may be used.
    pub fn limits(&self) -> Limits {
        self.limits.unwrap_or_default()
    }
}
