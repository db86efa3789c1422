//! Whose turn it is: start-time fair queueing over the tenants that wait, by predicted seconds of work.
//!
//! Each tenant is served as if it had a lane of its own whose speed is an equal share. Between two that wait all the time the served
//! work differs by no more than the two largest jobs. One that was away gets no credit for it. A lane is never left idle for it.

use std::collections::HashMap;

/// Work that a job of next to no predicted seconds counts as: it takes a place all the same.
const LEAST_WORK: f64 = 0.05;

/// The turns of tenants. Jobs of unknown tenants count as those of one.
#[derive(Debug, Default)]
pub struct Turns {
    /// The start of the job that was served last, in seconds of virtual time.
    now: f64,
    /// Where the served work of each tenant ends, if that is ahead of `now`.
    ends: HashMap<Option<u64>, f64>,
}

impl Turns {
    /// When a tenant's next job starts, in virtual time: the least is next.
    pub fn start(&self, tenant: Option<u64>) -> f64 {
        if self.ends.is_empty() {
            return self.now;
        }
        self.ends.get(&tenant).map_or(self.now, |end| end.max(self.now))
    }

    /// A tenant is served that many seconds of work.
    pub fn serve(&mut self, tenant: Option<u64>, predicted: f64) {
        let start = self.start(tenant);
        self.now = start;
        self.ends.insert(tenant, start + predicted.max(LEAST_WORK));
        // What is not ahead says no more than that nothing is there.
        let now = self.now;
        self.ends.retain(|_, end| *end > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns_by_work_and_absence_earns_nothing() {
        let mut turns = Turns::default();
        let next = |turns: &Turns| if turns.start(Some(1)) <= turns.start(Some(2)) { 1 } else { 2 };
        let mut served = [0.0; 3];
        for _ in 0..100 {
            let tenant = next(&turns);
            // The jobs of the second are five times as long.
            let work = if tenant == 1 { 1.0 } else { 5.0 };
            turns.serve(Some(tenant as u64), work);
            served[tenant] += work;
            assert!((served[1] - served[2]).abs() <= 10.0, "{served:?}");
        }
        for _ in 0..1000 {
            turns.serve(Some(1), 1.0);
        }
        let mut row = 0;
        while next(&turns) == 2 {
            turns.serve(Some(2), 5.0);
            row += 1;
        }
        assert!(row <= 2, "{row} in a row after an absence");
        assert!(turns.ends.len() <= 2);
    }
}
