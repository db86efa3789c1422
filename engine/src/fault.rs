//! The fault switchboard: plays every way in which a GPU engine fails, while shallow health stays green.
//!
//! | file | part |
//! |---|---|
//! | `mode`, `variant` | what can be armed (pure) |
//! | `arming` | what is armed when, and until when; read and checked (pure) |
//! | `armed` | when an armed fault strikes (pure, time and chance passed in) |
//! | `plan` | what the faults do to one inference |
//! | `body` | what failures look like on the wire |
//! | `state_file` | faults that outlive the process |

mod armed;
pub mod arming;
pub mod body;
mod mode;
mod plan;
mod state_file;
pub mod variant;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

pub use plan::{Fate, Plan};

use armed::Armed;
use arming::Arming;
use mode::Mode;
use plan::apply;
use state_file::{Kept, StateFile};
use variant::BadLoad;

/// What keeps the model from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadFault {
    /// It is still loading.
    Loading,
    /// It failed, for this reason.
    Failed(&'static str),
}

/// All armed faults of a process.
pub struct Switchboard {
    board: Mutex<Board>,
    file: StateFile,
}

struct Board {
    armed: Vec<Armed>,
    random: u64,
    leak: Vec<Vec<u8>>,
}

impl Switchboard {
    /// Takes over what the state file holds; a file that cannot be read is reported and left alone.
    #[must_use]
    pub fn open(state_directory: PathBuf, now: Instant) -> Self {
        let file = StateFile::new(state_directory);
        let kept = file.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "unable to read fault state");
            Vec::new()
        });
        let armed: Vec<Armed> = kept.into_iter().map(|kept| Armed::restored(kept, now)).collect();
        let board = Board { armed, random: 0x9e37_79b9_7f4a_7c15, leak: Vec::new() };
        let switchboard = Self { board: Mutex::new(board), file };
        switchboard.save(&switchboard.board.lock());
        switchboard
    }

    /// Arms a fault; one of the same mode is replaced.
    pub fn arm(&self, arming: Arming, now: Instant) {
        let mut board = self.board.lock();
        let id = std::mem::discriminant(&arming.mode);
        board.armed.retain(|armed| std::mem::discriminant(&armed.arming.mode) != id);
        board.armed.push(Armed::new(arming, now));
        self.save(&board);
    }

    /// Disarms everything, in the state file too, and frees what leaked.
    pub fn disarm(&self) {
        let mut board = self.board.lock();
        board.armed.clear();
        board.leak.clear();
        self.save(&board);
    }

    /// What happens to an inference that was just accepted. `ahead` others are in flight; `hash` is the xxh3-64 of
    /// its input.
    pub fn infer(&self, hash: u64, ahead: usize, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut board = self.board.lock();
        let Board { armed, random, leak } = &mut *board;
        let mut tripped = false;
        for fault in armed.iter_mut() {
            let was = fault.tripped().is_some();
            if fault.strikes(hash, ahead, now, next_random(random)) {
                apply(fault, now, &mut plan, leak);
            }
            tripped |= fault.tripped().is_some() != was;
        }
        if tripped {
            self.save(&board);
        }
        plan
    }

    /// Counts an inference that F6 struck by its length.
    pub fn count_oom(&self) {
        for fault in &mut self.board.lock().armed {
            if matches!(fault.arming.mode, Mode::F6 { .. }) {
                fault.fired += 1;
            }
        }
    }

    /// F10: nothing is answered before this.
    pub fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let mut board = self.board.lock();
        let until = |fault: &mut Armed| match fault.arming.mode {
            Mode::F10 { seconds } => {
                fault.set_in(now).map(|tripped| tripped + duration(seconds)).filter(|until| *until > now)
            }
            _ => None,
        };
        board.armed.iter_mut().find_map(until)
    }

    /// F10: returns once answers may be given.
    pub async fn pass_blockade(&self) {
        while self.blocked_until(Instant::now()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// F13: connections are refused.
    pub fn listener_closed(&self, now: Instant) -> bool {
        let closed = |fault: &mut Armed| {
            matches!(fault.arming.mode, Mode::F13 { rst_after_bytes: None }) && fault.set_in(now).is_some()
        };
        self.board.lock().armed.iter_mut().any(closed)
    }

    /// F18 and F27: why the model is not loaded.
    pub fn load_fault(&self, now: Instant) -> Option<LoadFault> {
        let mut board = self.board.lock();
        let fault = |fault: &mut Armed| {
            let (mode, since) = (fault.arming.mode.clone(), fault.set_in(now)?);
            let slow = |seconds| (now < since + duration(seconds)).then_some(LoadFault::Loading);
            match mode {
                Mode::F18 { variant: BadLoad::Never, .. } => Some(LoadFault::Loading),
                Mode::F18 { variant: BadLoad::Fail, .. } => Some(LoadFault::Failed(body::DRIVER_TOO_OLD)),
                Mode::F18 { variant: BadLoad::Slow, seconds } => slow(seconds),
                Mode::F27 { seconds } if fault.restored => slow(seconds),
                _ => None,
            }
        };
        board.armed.iter_mut().find_map(fault)
    }

    /// What is armed, how often it struck, and the utilisation that a GPU would show in percent.
    pub fn report(&self, busy: bool, now: Instant) -> Value {
        let mut board = self.board.lock();
        let mut util = if busy { 100 } else { 0 };
        for fault in &mut board.armed {
            let set_in = fault.set_in(now).is_some();
            match fault.arming.mode {
                Mode::F7 {} if set_in => util = 100,
                Mode::F8 {} if set_in => util = 0,
                _ => {}
            }
        }
        let leaked: usize = board.leak.iter().map(Vec::len).sum();
        let armed: Vec<Value> = board.armed.iter_mut().map(|fault| fault.report(now)).collect();
        json!({ "armed": armed, "util": util, "leaked_mb": leaked >> 20 })
    }

    fn save(&self, board: &Board) {
        let kept: Vec<Kept> = board.armed.iter().filter_map(Armed::kept).collect();
        if let Err(error) = self.file.save(&kept) {
            tracing::warn!(%error, "unable to write fault state");
        }
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// xorshift64, as a share of 1: the same faults in every run.
fn next_random(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}
