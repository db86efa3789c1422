//! The voices that engines have, remembered while the engines are away.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use super::Upstreams;
use crate::job::voice::VoiceName;

/// How long a list counts as current.
const LIST_TTL: Duration = Duration::from_secs(60);
/// How long after a failure no engine is asked.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the engines may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The list of voices.
pub struct Voices {
    upstreams: Upstreams,
    known: RwLock<Arc<[String]>>,
    /// When a list is due again; locked while one is asked for.
    due: tokio::sync::Mutex<Instant>,
}

impl Voices {
    /// Nothing known yet.
    pub fn new(upstreams: Upstreams) -> Self {
        Self { upstreams, known: RwLock::new(Arc::from([])), due: tokio::sync::Mutex::new(Instant::now()) }
    }

    /// What was listed last: full names with emotions, sorted. Does not wait.
    pub fn known(&self) -> Arc<[String]> {
        self.known.read().clone()
    }

    /// The current list, asked for if it is old; the last known one if no engine answers.
    pub async fn current(&self) -> Arc<[String]> {
        let mut due = self.due.lock().await;
        if Instant::now() >= *due {
            let listed = self.ask().await;
            *due = Instant::now() + if listed.is_some() { LIST_TTL } else { PAUSE };
            if let Some(voices) = listed {
                *self.known.write() = voices.into();
            }
        }
        self.known()
    }

    /// The names without their emotions, each once.
    pub async fn base_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for voice in self.current().await.iter() {
            let base = VoiceName::parse(voice).map_or(&**voice, |name| name.base);
            if names.last().is_none_or(|last| last != base) {
                names.push(base.to_owned());
            }
        }
        names
    }

    async fn ask(&self) -> Option<Vec<String>> {
        self.upstreams.list_voices(TIMEOUT).await.filter(|voices| !voices.is_empty())
    }
}
