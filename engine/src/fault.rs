//! The fault switchboard: plays every way in which a GPU engine fails, while shallow health stays green.
//!
//! | file | part |
//! |---|---|
//! | `mode` | what can be armed (pure) |
//! | `armed` | when an armed fault strikes (pure, time and chance passed in) |
//! | `body` | what failures look like on the wire |
//! | `state_file` | faults that outlive the process |

pub mod armed;
pub mod body;
pub mod mode;
mod state_file;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use armed::Armed;
use body::Failure;
use mode::{Arming, BadAudio, BadLoad, BadTranscript, DeadChild, Mode, Signature};
use state_file::{Kept, StateFile};

/// F17 never holds more than this.
const MAX_LEAK_BYTES: usize = 512 << 20;

/// How an inference begins.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Fate {
    /// It runs.
    #[default]
    Serve,
    /// It is answered like this instead.
    Fail(Failure),
    /// It is never answered.
    Hang,
}

/// What the armed faults do to one inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whether it runs at all.
    pub fate: Fate,
    /// Jobs that may wait, and the status of a refusal.
    pub queue: Option<(usize, u16)>,
    /// Audio longer than this many seconds is out of memory.
    pub oom_above_s: Option<f64>,
    /// The transcript is replaced.
    pub transcript: Option<BadTranscript>,
    /// The audio is spoilt.
    pub audio: Option<BadAudio>,
    /// The service time is multiplied.
    pub slow: f64,
    /// The connection is reset after this many bytes of the response's body.
    pub reset_after: Option<u64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            fate: Fate::Serve,
            queue: None,
            oom_above_s: None,
            transcript: None,
            audio: None,
            slow: 1.0,
            reset_after: None,
        }
    }
}

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

/// Adds the effect of a fault that strikes; the first one to decide the fate wins.
fn apply(fault: &Armed, now: Instant, plan: &mut Plan, leak: &mut Vec<Vec<u8>>) {
    let since = fault.tripped().unwrap_or(now);
    let fate = match fault.arming.mode {
        Mode::F1 { signature } | Mode::F22 { signature } | Mode::F23 { signature } => {
            Fate::Fail(body::cuda(500, signature))
        }
        Mode::F2 {} => Fate::Fail(body::cublas()),
        Mode::F3 { status } => Fate::Fail(body::server_error(status)),
        Mode::F4 { signature } => Fate::Fail(body::cuda(422, signature)),
        Mode::F5 {} => Fate::Fail(body::validation(fault.fired)),
        Mode::F6 { oom_above_s, sticky } => {
            if sticky || oom_above_s == 0.0 {
                Fate::Fail(body::out_of_memory())
            } else {
                plan.oom_above_s = Some(oom_above_s);
                Fate::Serve
            }
        }
        Mode::F7 {} | Mode::F8 {} | Mode::F9 {} | Mode::F12 { variant: DeadChild::Hang } => Fate::Hang,
        Mode::F12 { variant: DeadChild::Error } => Fate::Fail(body::dead_child()),
        Mode::F31 {} => Fate::Fail(body::cuda(500, Signature::Capture)),
        Mode::F10 { .. } | Mode::F18 { .. } | Mode::F27 { .. } => Fate::Serve,
        Mode::F11 { limit, status } => {
            plan.queue = Some((limit, status));
            Fate::Serve
        }
        Mode::F13 { rst_after_bytes } => {
            plan.reset_after = rst_after_bytes;
            Fate::Serve
        }
        Mode::F14 { variant } => {
            plan.transcript = Some(variant);
            Fate::Serve
        }
        Mode::F15 { variant } => {
            plan.audio = Some(variant);
            Fate::Serve
        }
        Mode::F16 { factor, ramp_s } => {
            let elapsed = now.saturating_duration_since(since).as_secs_f64();
            let reached = if ramp_s > 0.0 { (elapsed / ramp_s).min(1.0) } else { 1.0 };
            plan.slow = 1.0 + (factor - 1.0) * reached;
            Fate::Serve
        }
        Mode::F17 { mb_per_req } => {
            let held: usize = leak.iter().map(Vec::len).sum();
            // Written, so that it is resident.
            leak.push(vec![1; (mb_per_req << 20).min(MAX_LEAK_BYTES.saturating_sub(held))]);
            Fate::Serve
        }
    };
    if plan.fate == Fate::Serve {
        plan.fate = fate;
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
