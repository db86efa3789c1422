//! What the armed faults do to one inference.

use std::time::Instant;

use super::armed::{Armed, Inference};
use super::body::{self, Failure};
use super::mode::Mode;
use super::variant::{BadAudio, BadTranscript, DeadChild, OpenSizes, Signature};

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
    /// A streamed reply stops after this many messages.
    pub silent_after: Option<u64>,
    /// Its job waits this many seconds before it begins.
    pub delay_s: f64,
    /// Its job never ends.
    pub stuck: bool,
    /// The sizes in a WAV header are these.
    pub sizes: Option<OpenSizes>,
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
            silent_after: None,
            delay_s: 0.0,
            stuck: false,
            sizes: None,
        }
    }
}

/// Adds the effect of a fault that strikes; the first one to decide the fate wins. `leak` is what F17 holds.
pub fn apply(fault: &Armed, inference: &Inference, now: Instant, plan: &mut Plan, leak: &mut Vec<Vec<u8>>) {
    let since = fault.tripped().unwrap_or(now);
    let fate = match fault.arming.mode {
        Mode::F1 { signature }
        | Mode::F22 { signature }
        | Mode::F23 { signature }
        | Mode::F45 { signature } => Fate::Fail(body::cuda(500, signature)),
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
        Mode::F10 { .. } | Mode::F18 { .. } | Mode::F27 { .. } | Mode::F32 { .. } => Fate::Serve,
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
        Mode::F33 { status, .. } => Fate::Fail(body::loading(status)),
        Mode::F34 { seconds } => {
            plan.delay_s = seconds;
            Fate::Serve
        }
        Mode::F35 { status } => Fate::Fail(body::not_loaded(status)),
        Mode::F38 {} => {
            plan.stuck = true;
            Fate::Serve
        }
        Mode::F39 { code, signature, ref message } => {
            Fate::Fail(body::grpc(code, signature, message.as_deref()))
        }
        Mode::F40 { after_messages } => {
            plan.silent_after = Some(after_messages);
            Fate::Serve
        }
        // The process ends before an answer would be due.
        Mode::F41 { delay_s } => {
            if delay_s > 0.0 {
                Fate::Serve
            } else {
                Fate::Hang
            }
        }
        Mode::F42 { status } => match inference.origin.echo {
            Some(ref echo) => Fate::Fail(body::echo(status, echo.field, &echo.text)),
            None => Fate::Serve,
        },
        Mode::F43 { variant } => {
            plan.sizes = Some(variant);
            Fate::Serve
        }
    };
    if plan.fate == Fate::Serve {
        plan.fate = fate;
    }
}
