//! A stream that is recognized while it comes: utterances end at pauses, and each recognition is a job of the lane.

mod utterances;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decode::RATE_HZ;
use crate::fault::origin::Origin;
use crate::work::transcribe::{Recording, Spoken, Wanted, tell_speakers};
use crate::work::{Cuts, Refusal, Transcriber};
use utterances::{Utterance, Utterances};

/// A slow interim recognition delays the next one by as much, up to this.
const MAX_INTERIM_PAUSE: Duration = Duration::from_secs(2);

/// A stream under way.
pub struct Listening {
    stt: Arc<Transcriber>,
    origin: Origin,
    /// Set when a fault is to cut the answers off.
    cuts: Cuts,
    wanted: Wanted,
    /// Whether speakers are to be told apart.
    speakers: bool,
    utterances: Utterances,
    /// All samples so far, when speakers are to be told apart.
    history: Vec<i16>,
    /// Interim recognitions take at most half of the time.
    next_interim: Instant,
}

/// What was heard of an utterance.
pub struct Heard {
    /// The words of each sentence-like piece; an utterance that has not ended is one.
    pub sentences: Vec<Vec<Spoken>>,
    /// Where the utterance begins in the stream, in seconds.
    pub offset_s: f64,
    /// Length of the stream so far, in seconds.
    pub received_s: f64,
    /// Whether the utterance has ended.
    pub ended: bool,
    /// Code of the language.
    pub language: String,
}

impl Listening {
    /// A stream that begins.
    pub fn new(
        stt: Arc<Transcriber>,
        origin: Origin,
        cuts: Cuts,
        language: Option<&'static str>,
        speakers: bool,
    ) -> Self {
        let wanted = Wanted { speakers: false, language };
        let utterances = Utterances::default();
        Self {
            stt,
            origin,
            cuts,
            wanted,
            speakers,
            utterances,
            history: Vec::new(),
            next_interim: Instant::now(),
        }
    }

    /// Where new samples are appended, 16 kHz.
    pub fn samples(&mut self) -> &mut Vec<i16> {
        self.utterances.samples()
    }

    /// What is heard now; `None` while nothing is due. `interims` asks also for utterances that have not ended.
    ///
    /// # Errors
    /// As [`Transcriber::transcribe`].
    pub async fn due(&mut self, interims: bool) -> Result<Option<Heard>, Refusal> {
        let Some(utterance) = self.utterances.due(interims && Instant::now() >= self.next_interim) else {
            return Ok(None);
        };
        let (began, ended) = (Instant::now(), utterance.ended);
        let heard = self.recognize(utterance).await?;
        if !ended {
            self.next_interim = Instant::now() + began.elapsed().min(MAX_INTERIM_PAUSE);
        }
        Ok(Some(heard))
    }

    /// What is heard of the rest once no more samples come; `None` when all is heard.
    ///
    /// # Errors
    /// As [`Transcriber::transcribe`].
    pub async fn rest(&mut self) -> Result<Option<Heard>, Refusal> {
        match self.utterances.due(false).or_else(|| self.utterances.rest()) {
            Some(utterance) => Ok(Some(self.recognize(utterance).await?)),
            None => Ok(None),
        }
    }

    async fn recognize(&mut self, utterance: Utterance) -> Result<Heard, Refusal> {
        let (offset_s, ended) = (seconds(utterance.start), utterance.ended);
        let speakers = self.speakers && ended;
        if speakers {
            self.history.resize(utterance.start, 0);
            self.history.extend_from_slice(&utterance.samples);
        }
        let recording = Recording::Samples(utterance.samples);
        let served = self.stt.transcribe(recording, self.wanted.clone(), &self.origin).await?;
        self.cuts.set(&served);
        let mut sentences = served.made.sentences;
        if speakers && !sentences.is_empty() {
            // Over the whole stream, so that a speaker keeps the tag.
            let heard = self.stt.diarize(Recording::Samples(self.history.clone()), &self.origin).await?;
            tell_speakers(&mut sentences, &heard.made.turns, offset_s);
        }
        if !ended || sentences.is_empty() {
            sentences = vec![sentences.concat()];
        }
        let received_s = seconds(self.utterances.received());
        Ok(Heard { sentences, offset_s, received_s, ended, language: served.made.language })
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE_HZ)
}
