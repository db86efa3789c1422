//! What the driver says about the engine's GPU, where NVIDIA's management library (NVML) is present: Xid errors, whether
//! a restart can help, and load.
//!
//! An Xid is a hint and never a proof: probes decide. It names the GPU and not the process, which others may share.

use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::sync::watch;

use contract::Class;

use crate::config;
use crate::guard::judge::observation::{Hint, Observation};
use crate::guard::path::observer::Observer;
use crate::net::drain::Drain;

mod metrics;
mod nvml;

use metrics::Metrics;

/// How long one wait for an Xid lasts; between two looks at everything else.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two hints of the same Xid: one fault gives many.
const HINT_PERIOD: Duration = Duration::from_secs(30);

/// Xids after which NVIDIA's advice is to restart the application (RESTART_APP). Of the others some are no fault and
/// some need a reset of the GPU, which [`RecoveryAction`] tells.
const RESTART_APP: &[u64] = &[
    8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 80, 94, 126, 127, 128, 129, 130, 131, 132,
    133, 134, 135,
];

/// What can be read of one GPU. Calls block for as long as the driver does.
pub trait Gpu: Send {
    /// Its UUID.
    fn uuid(&self) -> &str;

    /// Waits for an Xid error, at most `timeout`. `None` when there was none.
    fn xid(&mut self, timeout: Duration) -> Result<Option<u64>, Error>;

    /// What the driver wants done; `None` where it does not say.
    fn recovery_action(&self) -> Option<RecoveryAction>;

    /// How much of it is used; `None` where that cannot be read.
    fn usage(&self) -> Option<Usage>;
}

/// Why a GPU cannot be read any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is absent or refuses.
    #[error("unable to use NVML: {source}")]
    Library {
        /// The reason.
        #[source]
        source: nvml_wrapper::error::NvmlError,
    },
    /// There are several GPUs, and the engine's environment does not say which it uses.
    #[error("{count} GPUs, and CUDA_VISIBLE_DEVICES of the engine does not name one")]
    Ambiguous {
        /// GPUs on this machine.
        count: u32,
    },
    /// The GPU is gone.
    #[error("unable to wait for events of the GPU: {source}")]
    Events {
        /// The reason.
        #[source]
        source: nvml_wrapper::error::NvmlError,
    },
}

/// What the driver wants done before the GPU is good again (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Nothing: a new process works.
    None,
    /// Reset the GPU.
    Reset,
    /// Reboot the node.
    Reboot,
    /// End traffic between GPUs.
    DrainPeers,
    /// End all work, then reset the GPU.
    DrainAndReset,
    /// Something that only a newer driver knows.
    Other,
}

impl RecoveryAction {
    /// The action of that number.
    pub fn of(number: u64) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Reset,
            2 => Self::Reboot,
            3 => Self::DrainPeers,
            4 => Self::DrainAndReset,
            _ => Self::Other,
        }
    }

    /// Whether a restart of the engine cannot help.
    pub fn makes_restart_futile(self) -> bool {
        self != Self::None
    }
}

/// How much of a GPU is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Share of the time in which a kernel ran, 0 to 1.
    pub utilisation: f64,
    /// Memory in use, bytes.
    pub memory: u64,
}

/// What is known of the engine's GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuState {
    /// Its UUID; empty without a GPU.
    pub uuid: String,
    /// The last Xid error and when it was seen.
    pub xid: Option<(u64, Instant)>,
    /// What the driver wants done, where it says so.
    pub recovery: Option<RecoveryAction>,
    /// How much of it is used.
    pub usage: Option<Usage>,
}

impl GpuState {
    /// Whether the driver says that a restart of the engine cannot help.
    pub fn restart_is_futile(&self) -> bool {
        self.recovery.is_some_and(RecoveryAction::makes_restart_futile)
    }
}

/// Watches the engine's GPU on a thread of its own until the drain is forced. Without a GPU or NVML nothing is known.
///
/// # Errors
/// When a metric of the same name exists.
pub fn start(
    engine: &config::Engine,
    registry: &Registry,
    observer: &Observer,
    drain: &Drain,
) -> Result<watch::Receiver<GpuState>, prometheus::Error> {
    let (publish, state) = watch::channel(GpuState::default());
    let name = engine.name.clone();
    // An engine in a container of its own has GPUs that this process does not see.
    let opened = match engine.command.is_empty() {
        true => return Ok(state),
        false => nvml::open(engine.env.get("CUDA_VISIBLE_DEVICES").map(String::as_str)),
    };
    let gpu = match opened {
        Ok(gpu) => gpu,
        Err(error) => {
            tracing::debug!(engine = name, %error, "GPU not watched");
            return Ok(state);
        }
    };
    let metrics = Metrics::register(registry, &name)?;
    let mut watcher =
        Watcher { gpu, publish, observer: observer.clone(), metrics, hinted: None, engine: name };
    let drain = drain.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    tokio::spawn(async move {
        drain.forced().await;
        drop(stop);
    });
    let spawned = std::thread::Builder::new().name("gpu".to_owned()).spawn(move || {
        while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            if let Err(error) = watcher.look() {
                tracing::warn!(engine = watcher.engine, %error, "GPU no longer watched");
                return;
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(engine = engine.name, %error, "unable to start a thread: GPU not watched");
    }
    Ok(state)
}

struct Watcher<G> {
    gpu: G,
    publish: watch::Sender<GpuState>,
    observer: Observer,
    metrics: Metrics,
    /// The Xid that was hinted at last.
    hinted: Option<(u64, Instant)>,
    engine: String,
}

impl<G: Gpu> Watcher<G> {
    /// Waits for an Xid for a while, then looks at everything else.
    fn look(&mut self) -> Result<(), Error> {
        let xid = self.gpu.xid(PERIOD)?;
        let now = Instant::now();
        let before = self.publish.borrow().clone();
        let state = GpuState {
            uuid: self.gpu.uuid().to_owned(),
            xid: xid.map(|xid| (xid, now)).or(before.xid),
            recovery: self.gpu.recovery_action(),
            usage: self.gpu.usage(),
        };
        if state.recovery != before.recovery && (state.restart_is_futile() || before.restart_is_futile()) {
            let (engine, gpu) = (&self.engine, &state.uuid);
            tracing::warn!(engine, gpu, recovery = ?state.recovery, "GPU's recovery action changed");
        }
        if let Some(xid) = xid {
            self.seen(xid, &state.uuid, now);
        }
        self.metrics.show(&state);
        self.publish.send_replace(state);
        Ok(())
    }

    fn seen(&mut self, xid: u64, gpu: &str, now: Instant) {
        self.metrics.xid();
        tracing::warn!(engine = self.engine, gpu, xid, "Xid error");
        let repeats =
            |(known, at): (u64, Instant)| known == xid && now.saturating_duration_since(at) < HINT_PERIOD;
        if !RESTART_APP.contains(&xid) || self.hinted.is_some_and(repeats) {
            return;
        }
        self.hinted = Some((xid, now));
        self.observer.observe(Observation::Hint(Hint {
            class: Class::Xid,
            signature: Some(format!("xid_{xid}")),
            status: None,
            body: None,
            request_hash: None,
            started: now,
            seen: now,
        }));
    }
}

#[cfg(test)]
mod tests;
