//! The fault switchboard: plays every way in which a GPU engine fails, while shallow health stays green.
//!
//! | file | part |
//! |---|---|
//! | `mode`, `variant` | what can be armed (pure) |
//! | `arming` | what is armed when, and until when; read and checked (pure) |
//! | `armed` | when an armed fault strikes (pure, time and chance passed in) |
//! | `origin` | what faults look at in a request, besides its audio or text |
//! | `plan` | what the faults do to one inference |
//! | `body` | what failures look like on the wire |
//! | `state_file` | faults that outlive the process |

mod armed;
pub mod arming;
pub mod body;
mod mode;
pub mod origin;
mod plan;
mod state_file;
pub mod variant;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

pub use plan::{Fate, Plan};

pub use armed::Inference;

use armed::Armed;
use arming::Arming;
use mode::Mode;
use plan::apply;
use state_file::{Kept, StateFile};
use variant::BadLoad;

/// F41 lets the reply to its arming out first.
const LAST_REPLY: Duration = Duration::from_millis(100);

/// What keeps the model from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadFault {
    /// It is still loading.
    Loading,
    /// It failed, for this reason.
    Failed(&'static str),
}

/// F32: an inference that makes the model ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColdStart {
    /// What that takes.
    pub length: Duration,
    armed: Instant,
}

/// F41: the process has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("RuntimeError: CUDA error: {0}")]
pub struct Crash(&'static str);

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

    /// What happens to an inference that was just accepted.
    pub fn infer(&self, inference: &Inference, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut board = self.board.lock();
        let Board { armed, random, leak } = &mut *board;
        let mut tripped = false;
        for fault in armed.iter_mut() {
            let was = fault.tripped().is_some();
            if fault.strikes(inference, now, next_random(random)) {
                apply(fault, inference, now, &mut plan, leak);
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

    /// F32: what a job that begins now has to wait for.
    pub fn cold_start(&self, now: Instant) -> Option<ColdStart> {
        let mut board = self.board.lock();
        let cold = |fault: &mut Armed| match fault.arming.mode {
            Mode::F32 { seconds } => {
                fault.set_in(now)?;
                fault.fired += 1;
                Some(ColdStart { length: duration(seconds), armed: fault.since() })
            }
            _ => None,
        };
        board.armed.iter_mut().find_map(cold)
    }

    /// F32: the first inference has ended.
    pub fn warmed(&self, cold: ColdStart) {
        for fault in &mut self.board.lock().armed {
            if matches!(fault.arming.mode, Mode::F32 { .. }) && fault.since() == cold.armed {
                fault.end();
            }
        }
    }

    /// F38: whether a job that it struck is still held.
    pub fn holds(&self, now: Instant) -> bool {
        let stuck = |fault: &Armed| {
            matches!(fault.arming.mode, Mode::F38 {}) && fault.fired > 0 && !fault.expired(now)
        };
        self.board.lock().armed.iter().any(stuck)
    }

    /// F45: a client has left while its inference ran.
    pub fn client_left(&self, now: Instant) {
        let mut board = self.board.lock();
        let mut cancelled =
            board.armed.iter_mut().filter(|fault| matches!(fault.arming.mode, Mode::F45 { .. }));
        if cancelled.any(|fault| fault.trip(now)) {
            self.save(&board);
        }
    }

    /// F41: whether the process has to end now.
    pub fn crash(&self, now: Instant) -> Option<Crash> {
        let mut board = self.board.lock();
        let due = |fault: &mut Armed| match fault.arming.mode {
            Mode::F41 { delay_s } => {
                let since = fault.set_in(now)?;
                let least = if fault.restored { Duration::ZERO } else { LAST_REPLY };
                (now >= since + duration(delay_s).max(least)).then_some(Crash(body::DRIVER_TOO_OLD))
            }
            _ => None,
        };
        let crash = board.armed.iter_mut().find_map(due);
        if crash.is_some() {
            self.save(&board);
        }
        crash
    }

    /// F18, F27 and a restored F41: why the model is not loaded.
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
                // Set in by the start itself, not by an inference since.
                Mode::F41 { .. } if fault.restored && since == fault.since() => Some(LoadFault::Loading),
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
