//! The protocols of the guard's engine: which job a request is, and whose turn it is to be probed.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use crate::config;
use crate::guard::key::{self, Key};
use crate::protocol::{Codec, Settings, Task, Transport};

/// A protocol that an engine speaks.
pub type Spoken = Arc<dyn Deref<Target = dyn Codec> + Send + Sync>;

/// The protocols of one engine in order of preference, never empty, shared by its data path and its prober.
pub struct Protocols {
    all: Vec<Spoken>,
    settings: Settings,
    /// The key that the engine asks for.
    key: Option<Key>,
    /// Probes sent.
    probes: AtomicUsize,
    /// Which one is to be probed until it passes; [`NONE`] when none is.
    doubted: AtomicUsize,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Place of its protocol among the engine's.
    pub protocol: usize,
    /// What it asks for.
    pub task: Task,
    /// What carries it.
    pub transport: Transport,
}

/// No protocol is doubted.
const NONE: usize = usize::MAX;

impl Protocols {
    /// Those that the configuration names, or the default of the engine's capability.
    ///
    /// # Errors
    /// When the engine's key cannot be read.
    pub fn of(engine: &config::Engine) -> Result<Self, key::Error> {
        let spoken = engine.spoken().into_iter().map(|protocol| Arc::new(protocol) as Spoken);
        let key = engine.key_file.as_deref().map(Key::open).transpose()?;
        Ok(Self { key, ..Self::new(spoken.collect(), engine.settings()) })
    }

    /// These, of which there is at least one.
    pub(in crate::guard) fn new(all: Vec<Spoken>, settings: Settings) -> Self {
        debug_assert!(!all.is_empty(), "an engine without a protocol");
        Self { all, settings, key: None, probes: AtomicUsize::new(0), doubted: AtomicUsize::new(NONE) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// What of the engine's configuration they need.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Puts the engine's key into the headers of a request, in place of any other.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        if let Some(key) = &self.key {
            headers.insert(AUTHORIZATION, key.bearer());
        }
    }

    /// The protocol at a place; the first one for a place that there is not.
    pub fn codec(&self, at: usize) -> &dyn Codec {
        let spoken = self.all.get(at).unwrap_or(&self.all[0]);
        let codec: &(dyn Deref<Target = dyn Codec> + Send + Sync) = &**spoken;
        codec.deref()
    }

    /// The first one that is carried by HTTP/1.1; the first of all when there is none.
    pub fn http(&self) -> &dyn Codec {
        let http = (0..self.count()).find(|at| self.codec(*at).transport() == Transport::Http);
        self.codec(http.unwrap_or(0))
    }

    /// The job that a request is; `None` when it needs no GPU.
    pub fn job(&self, method: &Method, path: &str) -> Option<Job> {
        (0..self.count()).find_map(|protocol| {
            let codec = self.codec(protocol);
            let task = codec.task(method, path)?;
            Some(Job { protocol, task, transport: codec.transport() })
        })
    }

    /// Place of the protocol that the next probe speaks. Without a doubt they alternate, in such a way that each of
    /// `clips` golden inputs, which alternate too, meets each protocol.
    pub fn turn(&self, clips: usize) -> usize {
        let doubted = self.doubted.load(Ordering::Relaxed);
        if doubted < self.count() {
            return doubted;
        }
        let sent = self.probes.fetch_add(1, Ordering::Relaxed);
        // Without the shift, two clips and two protocols would always meet in the same pairs.
        let round = clips.max(1) * self.count() / divisor(clips.max(1), self.count());
        sent.wrapping_add(sent / round) % self.count()
    }

    /// A request or probe of this protocol failed: from now on it is the one that is probed.
    pub fn doubt(&self, at: usize) {
        self.doubted.store(at, Ordering::Relaxed);
    }

    /// A probe of this protocol passed.
    pub fn passed(&self, at: usize) {
        // Another one may have come into doubt meanwhile, which stays.
        let _ = self.doubted.compare_exchange(at, NONE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The greatest common divisor of two numbers above 0.
fn divisor(mut one: usize, mut other: usize) -> usize {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

impl fmt::Debug for Protocols {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries((0..self.count()).map(|at| self.codec(at).name())).finish()
    }
}

#[cfg(test)]
pub(in crate::guard) mod tests {
    use std::collections::HashSet;

    use std::borrow::Cow;

    use super::*;
    use crate::job::work::{Audio, Transcript, Work};
    use crate::protocol::{Encoded, Error, File, Intake, Protocol};
    use contract::Capability;

    /// A protocol over gRPC whose messages are plain text.
    pub(in crate::guard) struct Plain;

    impl Codec for Plain {
        fn name(&self) -> &'static str {
            "plain"
        }

        fn capabilities(&self) -> &'static [Capability] {
            &[Capability::Stt]
        }

        fn transport(&self) -> Transport {
            Transport::Grpc
        }

        fn intake(&self, _: &Audio) -> Intake {
            Intake::Pcm
        }

        fn encode(&self, _: &Work, file: Option<&File<'_>>, _: &Settings) -> Result<Encoded, Error> {
            let length = file.and_then(|file| file.len).unwrap_or_default() as u32;
            Ok(Encoded {
                path: "/plain/transcribe",
                content_type: http::HeaderValue::from_static("application/grpc"),
                before: [&[0][..], &length.to_be_bytes()].concat().into(),
                pieces: None,
                after: bytes::Bytes::new(),
            })
        }

        fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
            Ok(Transcript { text: String::from_utf8_lossy(reply).into_owned(), ..Transcript::default() })
        }

        fn task(&self, method: &Method, path: &str) -> Option<Task> {
            match path {
                _ if method != Method::POST => None,
                "/plain/transcribe" => Some(Task::Transcribe),
                "/plain/converse" => Some(Task::TranscribeStream),
                "/plain/speak" => Some(Task::SynthesizeStream),
                _ => None,
            }
        }

        fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
            Ok(Some(String::from_utf8_lossy(reply)))
        }
    }

    /// [`both`], and one over gRPC.
    pub(in crate::guard) fn with_grpc() -> Protocols {
        let mut protocols = both();
        protocols.all.push(Arc::new(&Plain as &'static dyn Codec));
        protocols
    }

    /// One of the table.
    pub(in crate::guard) fn only(name: &str) -> Protocols {
        Protocols::new(vec![Arc::new(Protocol::named(name).unwrap()) as Spoken], Settings::default())
    }

    /// `parakeet`, and [`Plain`].
    pub(in crate::guard) fn two_transports() -> Protocols {
        let parakeet = Arc::new(Protocol::named("parakeet").unwrap()) as Spoken;
        Protocols::new(vec![parakeet, Arc::new(&Plain as &'static dyn Codec)], Settings::default())
    }

    /// Both protocols of the table that are carried by HTTP/1.1, whatever the engine's capability.
    pub(in crate::guard) fn both() -> Protocols {
        let named = |name| Arc::new(Protocol::named(name).unwrap()) as Spoken;
        Protocols::new(vec![named("parakeet"), named("magpie")], Settings::default())
    }

    #[test]
    fn a_job_is_recognised_by_any_protocol() {
        let protocols = both();
        let task = |path: &str| protocols.job(&Method::POST, path).map(|job| (job.protocol, job.task));
        assert_eq!(task("/v1/audio/diarize"), Some((0, Task::Diarize)));
        assert_eq!(task("/v1/audio/synthesize"), Some((1, Task::Synthesize)));
        assert_eq!(task("/v1/models"), None);
        assert_eq!(protocols.job(&Method::GET, "/v1/audio/diarize"), None);
    }

    #[test]
    fn every_clip_meets_every_protocol() {
        let protocols = both();
        for clips in [1, 2, 3] {
            let turns: Vec<(usize, usize)> = (0..12).map(|at| (at % clips, protocols.turn(clips))).collect();
            assert_eq!(turns.iter().collect::<HashSet<_>>().len(), clips * 2, "{clips}: {turns:?}");
            assert_ne!(turns[0].1, turns[1].1, "two probes in a row prove both");
        }
    }

    #[test]
    fn a_doubted_protocol_is_probed_until_it_passes() {
        let protocols = both();
        protocols.doubt(1);
        assert_eq!([protocols.turn(2), protocols.turn(2), protocols.turn(2)], [1, 1, 1]);
        protocols.passed(0);
        assert_eq!(protocols.turn(2), 1);
        protocols.passed(1);
        assert_ne!(protocols.turn(2), protocols.turn(2));
    }
}
