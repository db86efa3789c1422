//! Steady clients: short requests at a set rate, whatever happens to them, counted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{Client, Reply};
use crate::session::Session;
use crate::words::word_error;

/// Failures that are kept word by word.
const KEPT_FAILURES: usize = 5;
/// Requests in flight beyond which the load waits, so that a dead stack does not fill this process.
const MAX_IN_FLIGHT: u64 = 200;

/// What the clients ask for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A transcription of this WAV file.
    Transcribe(Bytes),
    /// Speech of this text, as WAV.
    Speak(String),
    /// An answer to this text.
    Chat(String),
    /// A session in which these 16 kHz samples are said at their pace; the text that must be heard.
    Converse(Arc<[i16]>, &'static str),
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests begun.
    pub begun: u64,
    /// Replies with status 200.
    pub ok: u64,
    /// Other statuses and broken connections.
    pub errors: u64,
    /// The first few of those.
    pub failures: Vec<String>,
    /// Slowest request so far.
    pub slowest: Duration,
}

/// Clients at work until they are stopped or dropped.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Mutex<Counts>>,
    pacer: JoinHandle<()>,
}

impl Load {
    /// Begins one request every `period`, each in its own task.
    pub fn start(client: Client, ask: Ask, period: Duration) -> Self {
        Self::bounded(client, ask, period, MAX_IN_FLIGHT)
    }

    /// As [`Load::start`], of so many clients: when all of them wait, none asks for more.
    pub fn bounded(client: Client, ask: Ask, period: Duration, clients: u64) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let shared = Arc::clone(&counts);
        let pacer = tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                {
                    let mut counts = shared.lock();
                    if counts.begun - counts.ok - counts.errors >= clients {
                        continue;
                    }
                    counts.begun += 1;
                }
                tokio::spawn(one(client.clone(), ask.clone(), Arc::clone(&shared)));
            }
        });
        Self { counts, pacer }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// Waits until all requests begun before this call are done, and returns the counts since `mark`.
    ///
    /// # Errors
    /// When they are not done in time.
    pub async fn since(&self, mark: &Counts) -> Result<Counts> {
        let begun = self.counts().begun;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let counts = self.counts();
            if counts.ok + counts.errors >= begun {
                let known = mark.failures.len();
                return Ok(Counts {
                    begun: counts.begun - mark.begun,
                    ok: counts.ok - mark.ok,
                    errors: counts.errors - mark.errors,
                    failures: counts.failures.into_iter().skip(known).collect(),
                    slowest: counts.slowest,
                });
            }
            ensure!(Instant::now() < deadline, "{} requests hang", begun - counts.ok - counts.errors);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Forgets the failures kept so far, so that the next ones are kept again, and returns the counts as a mark.
    pub fn mark(&self) -> Counts {
        let mut counts = self.counts.lock();
        counts.failures.clear();
        counts.slowest = Duration::ZERO;
        counts.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.pacer.abort();
    }
}

async fn one(client: Client, ask: Ask, counts: Arc<Mutex<Counts>>) {
    let begun = Instant::now();
    let failure = match ask {
        Ask::Transcribe(clip) => failure(client.transcribe("clip.wav", clip, "json").await),
        Ask::Speak(text) => failure(client.speak("alloy", &text, "wav").await),
        Ask::Chat(text) => failure(client.chat(&text).await),
        Ask::Converse(samples, text) => {
            converse(client.base(), &samples, text).await.err().map(|error| format!("{error:#}"))
        }
    };
    let mut counts = counts.lock();
    counts.slowest = counts.slowest.max(begun.elapsed());
    match failure {
        None => counts.ok += 1,
        Some(failure) => {
            counts.errors += 1;
            if counts.failures.len() < KEPT_FAILURES {
                counts.failures.push(failure);
            }
        }
    }
}

fn failure(reply: Result<Reply>) -> Option<String> {
    match reply {
        Ok(Reply { status: 200, .. }) => None,
        Ok(reply) => Some(format!("{} {} [{}]", reply.status, reply.text(), reply.request_id)),
        Err(error) => Some(format!("{error:#}")),
    }
}

async fn converse(url: &str, samples: &[i16], text: &str) -> Result<()> {
    let heard = Session::open(url).await?.say(samples).await?;
    let error = word_error(text, &heard.text);
    ensure!(error <= 0.5, "word error {error:.2}: {:?}", heard.text);
    Ok(())
}
