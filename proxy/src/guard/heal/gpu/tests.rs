use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::guard::heal::gpu::*;
use crate::guard::path::observer::Seen;

/// A GPU that shows what it is given.
#[derive(Default)]
struct Fake {
    xids: VecDeque<Option<u64>>,
    recovery: u64,
}

impl Gpu for Fake {
    fn uuid(&self) -> &str {
        "GPU-0"
    }

    fn xid(&mut self, _timeout: Duration) -> Result<Option<u64>, Error> {
        let lost = Error::Events { source: nvml_wrapper::error::NvmlError::GpuLost };
        self.xids.pop_front().ok_or(lost)
    }

    fn recovery_action(&self) -> Option<RecoveryAction> {
        Some(RecoveryAction::of(self.recovery))
    }

    fn usage(&self) -> Option<Usage> {
        Some(Usage { utilisation: 0.5, memory: 77 })
    }
}

fn watcher(gpu: Fake) -> (Watcher<Fake>, watch::Receiver<GpuState>, mpsc::Receiver<Seen>, Registry) {
    let (publish, state) = watch::channel(GpuState::default());
    let (observer, observations) = Observer::channel();
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, "stt-0").unwrap();
    let watcher = Watcher { gpu, publish, observer, metrics, hinted: None, engine: "stt-0".into() };
    (watcher, state, observations, registry)
}

#[test]
fn an_xid_that_a_restart_cures_is_a_hint_once() {
    let xids = [None, Some(13), Some(13), Some(43), Some(31)];
    let (mut watcher, state, mut observations, registry) =
        watcher(Fake { xids: xids.into(), ..Fake::default() });
    for _ in xids {
        watcher.look().unwrap();
    }
    let mut signatures = Vec::new();
    while let Ok(Seen { observation: Observation::Hint(hint), .. }) = observations.try_recv() {
        assert_eq!((hint.class, hint.status), (Class::Xid, None));
        signatures.push(hint.signature.unwrap());
    }
    assert_eq!(signatures, ["xid_13", "xid_31"], "43 is no fault of its own");
    assert_eq!(state.borrow().xid.unwrap().0, 31);
    assert!(!state.borrow().restart_is_futile());
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains("speechstack_gpu_xid_total{engine=\"stt-0\"} 4"), "{text}");
    assert!(text.contains("speechstack_gpu_memory_bytes{engine=\"stt-0\"} 77"), "{text}");
}

#[test]
fn a_restart_is_futile_when_the_driver_wants_more() {
    for (number, futile) in [(0, false), (1, true), (2, true), (3, true), (4, true), (99, true)] {
        let (mut watcher, state, mut observations, _) =
            watcher(Fake { xids: [Some(119)].into(), recovery: number });
        watcher.look().unwrap();
        assert_eq!(state.borrow().restart_is_futile(), futile, "{number}");
        assert!(observations.try_recv().is_err(), "119 needs a reset: no restart is hinted at");
    }
    assert!(!GpuState::default().restart_is_futile(), "a driver that does not say");
}

#[test]
fn a_gpu_that_is_lost_ends_the_watch() {
    let (mut watcher, state, _, _) = watcher(Fake::default());
    assert!(matches!(watcher.look(), Err(Error::Events { .. })));
    assert_eq!(*state.borrow(), GpuState::default());
}
