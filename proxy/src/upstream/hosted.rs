//! Engines of others: the last resort of a pool, within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::balance::Candidate;
use super::membership::Guest;
use super::send::Picked;
use crate::config;
use crate::job::work::Work;

const DAY_MS: u64 = 86_400_000;
/// A job so long after the one before is the start of a use, milliseconds.
const PAUSE_MS: u64 = 60_000;

/// What a job costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    seconds: f64,
    characters: f64,
}

impl Cost {
    /// That of work on so many seconds of audio.
    pub(super) fn of(work: &Work, audio_seconds: f64) -> Self {
        let characters = match work {
            Work::Transcribe(_) | Work::Diarize => {
                return Self { seconds: audio_seconds.max(0.0), characters: 0.0 };
            }
            Work::Synthesize(wanted) => wanted.text.chars().count(),
            Work::Chat(chat) => chat.characters(),
        };
        Self { seconds: 0.0, characters: characters as f64 }
    }
}

/// The budget of an engine of others, or of a pool of them.
#[derive(Debug)]
pub(super) struct Budget {
    /// The name by which the configuration knows it.
    pub(super) name: Arc<str>,
    limits: config::Hosted,
    used: Mutex<Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    day: u64,
    jobs: u64,
    cost: Cost,
    /// Unix time of the last job, milliseconds.
    last: u64,
    /// It was said that the day's budget is used up.
    is_logged: bool,
}

/// What became of a job that asked for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The first for a while.
    First,
    Further,
    /// The day's budget does not have it.
    Denied,
}

/// The budgets by name. They outlive endpoints: a pod that is replaced gets none anew.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<BTreeMap<Arc<str>, Arc<Budget>>>);

impl Budgets {
    /// That of an engine of others. Other limits count what was used under the old ones.
    pub(super) fn of(&self, guest: &Guest) -> Arc<Budget> {
        let mut budgets = self.0.lock();
        let known = budgets.get(&*guest.name);
        if let Some(budget) = known.filter(|budget| budget.is_of(guest)) {
            return Arc::clone(budget);
        }
        let used = known.map(|budget| *budget.used.lock()).unwrap_or_default();
        let name: Arc<str> = guest.name.as_str().into();
        let budget = Budget { name: Arc::clone(&name), limits: guest.limits.clone(), used: Mutex::new(used) };
        let budget = Arc::new(budget);
        budgets.insert(name, Arc::clone(&budget));
        budget
    }

    /// Forgets those that the configuration does not name any more.
    pub(super) fn retain(&self, config: &config::Config) {
        self.0.lock().retain(|name, _| config.is_hosted(name));
    }
}

impl Budget {
    pub(super) fn is_of(&self, guest: &Guest) -> bool {
        *self.name == *guest.name && self.limits == guest.limits
    }

    /// Whether there is enough for a job at `now`, milliseconds of Unix time. The second is set the first time in a day that
    /// there is not.
    fn has(&self, cost: Cost, now: u64) -> (bool, bool) {
        let mut used = self.used.lock();
        let has = self.fits(&mut used, cost, now);
        let is_news = !has && !used.is_logged;
        used.is_logged |= !has;
        (has, is_news)
    }

    /// Takes what a job costs at `now`, milliseconds of Unix time.
    pub(super) fn take(&self, cost: Cost, now: u64) -> Taken {
        let mut used = self.used.lock();
        if !self.fits(&mut used, cost, now) {
            return Taken::Denied;
        }
        let taken = if now.saturating_sub(used.last) > PAUSE_MS { Taken::First } else { Taken::Further };
        used.jobs += 1;
        used.cost.seconds += cost.seconds;
        used.cost.characters += cost.characters;
        used.last = now;
        taken
    }

    fn fits(&self, used: &mut Used, cost: Cost, now: u64) -> bool {
        let day = now / DAY_MS;
        if used.day != day {
            *used = Used { day, last: used.last, ..Used::default() };
        }
        let seconds = self.limits.audio_minutes_per_day.map(|minutes| minutes * 60.0);
        let characters = self.limits.characters_per_day.map(|characters| characters as f64);
        // What is used up takes no job of unknown length either.
        let has = |limit: Option<f64>, used: f64, more: f64| {
            limit.is_none_or(|limit| used + more <= limit && used < limit)
        };
        self.limits.jobs_per_day.is_none_or(|limit| used.jobs < limit)
            && has(seconds, used.cost.seconds, cost.seconds)
            && has(characters, used.cost.characters, cost.characters)
    }
}

/// What was found when engines of others were looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Denied {
    /// Engines that were needed, whose budget is used up.
    pub(super) engines: Vec<Arc<str>>,
    /// Of these, those of which that is news today.
    pub(super) news: Vec<Arc<str>>,
}

/// Leaves either one's own engines or, where these are missing or their queue is too long, those of others that have the budget.
pub(super) fn narrow(
    picks: &mut Vec<Picked>,
    candidates: &mut Vec<Candidate>,
    cost: Option<Cost>,
    now: u64,
) -> Denied {
    let mut denied = Denied::default();
    if picks.iter().all(|pick| pick.endpoint.budget.is_none()) {
        return denied;
    }
    let own = picks.iter().zip(candidates.iter()).filter(|(pick, _)| pick.endpoint.budget.is_none());
    let own_wait = own.map(|(_, candidate)| candidate.wait).reduce(f64::min);
    let mut is_used = |pick: &Picked| {
        let (Some(budget), Some(cost)) = (&pick.endpoint.budget, cost) else { return false };
        if own_wait.is_some_and(|wait| wait <= budget.limits.beyond_wait.as_secs_f64()) {
            return false;
        }
        let (has, is_news) = budget.has(cost, now);
        if !has && !denied.engines.contains(&budget.name) {
            denied.engines.push(Arc::clone(&budget.name));
        }
        if is_news {
            denied.news.push(Arc::clone(&budget.name));
        }
        has
    };
    let used: Vec<bool> = picks.iter().map(&mut is_used).collect();
    let any = used.contains(&true);
    for at in (0..picks.len()).rev() {
        let stays = if any { used[at] } else { picks[at].endpoint.budget.is_none() };
        if !stays {
            picks.remove(at);
            candidates.remove(at);
        }
    }
    denied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(jobs: u64) -> Guest {
        let limits = config::Hosted {
            jobs_per_day: Some(jobs),
            audio_minutes_per_day: Some(1.0),
            ..config::Hosted::default()
        };
        Guest { name: "cloud".into(), limits }
    }

    #[test]
    fn other_limits_and_other_pods_refill_nothing() {
        let (budgets, cost, now) = (Budgets::default(), Cost::default(), DAY_MS);
        assert_eq!(budgets.of(&guest(2)).take(cost, now), Taken::First);
        assert_eq!(budgets.of(&guest(2)).take(cost, now), Taken::Further, "the same for every pod");
        assert_eq!(budgets.of(&guest(2)).take(cost, now), Taken::Denied);
        assert_eq!(budgets.of(&guest(3)).take(cost, now), Taken::Further, "one more is allowed now");
        assert_eq!(budgets.of(&guest(3)).take(cost, now), Taken::Denied);
        budgets.retain(&config::Config::default());
        assert_eq!(
            budgets.of(&guest(1)).take(cost, now),
            Taken::First,
            "it was taken out, and is another one"
        );
    }

    #[test]
    fn a_budget_holds_for_a_day_and_its_use_begins_anew_after_a_pause() {
        let budgets = Budgets::default();
        let budget = budgets.of(&guest(3));
        let (noon, of) = (20_000 * DAY_MS + DAY_MS / 2, |seconds| Cost { seconds, characters: 0.0 });
        assert_eq!(budget.take(of(61.0), noon), Taken::Denied);
        assert_eq!(budget.take(of(50.0), noon), Taken::First);
        assert_eq!((budget.has(of(11.0), noon), budget.has(of(11.0), noon)), ((false, true), (false, false)));
        assert_eq!(budget.take(of(5.0), noon + 1), Taken::Further);
        assert_eq!(budget.take(of(5.0), noon + 2 * PAUSE_MS), Taken::First);
        assert_eq!(budget.take(of(0.0), noon + 2 * PAUSE_MS), Taken::Denied, "all of it is used up");
        assert_eq!(budget.take(of(60.0), noon + DAY_MS), Taken::First, "the next day");
    }
}
