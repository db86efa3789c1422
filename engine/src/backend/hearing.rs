//! Recordings to words and turns, by whatever models are there.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Error, Models};
use crate::activity::{self, FRAME};
use crate::diarize::{Turn, diarize};
use crate::ffi::Recognizer;
use crate::neural::diarization::Diarizer;
use crate::neural::files::Model;
use crate::neural::net::Threads;
use crate::neural::parakeet::Parakeet;
use crate::neural::whisper::{self, Piece, Whisper};
use crate::recognize::{Word, recognize};

/// Where Debian's `pocketsphinx-en-us` has its models.
const FALLBACK: &str = "/usr/share/pocketsphinx/model/en-us";
/// Pauses of this many frames of 10 ms separate pieces. Each piece costs a whole window of Whisper, so that shorter pauses
/// stay inside of one.
const APART_FRAMES: usize = 200;
/// No piece is longer, in frames of 10 ms. Pieces that fill a window of 30 s had more words wrong on a telephone.
const LONGEST_FRAMES: usize = 2_000;
/// A language is heard reliably in a piece of this many frames.
const SURE_FRAMES: usize = 300;

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The words of each sentence-like piece, in order; no piece is empty.
    pub sentences: Vec<Vec<Word>>,
    /// Code of the language, such as `en`.
    pub language: String,
}

/// Networks that all jobs of a process use.
pub struct Networks {
    whisper: Option<Whisper>,
    parakeet: Option<Parakeet>,
    diarizer: Option<Diarizer>,
}

/// Loads networks once for all jobs.
pub struct Loader {
    models: Models,
    loaded: Mutex<Option<Arc<Networks>>>,
}

/// What one job at a time recognizes with.
pub struct Hearing {
    networks: Arc<Networks>,
    /// Loaded only where there is no network.
    fallback: Option<Recognizer>,
}

impl Loader {
    /// Nothing is loaded yet.
    #[must_use]
    pub fn new(models: Models) -> Self {
        Self { models, loaded: Mutex::new(None) }
    }

    /// What one more job recognizes with.
    ///
    /// # Errors
    /// When a model is there and cannot be loaded, or the fallback is needed and is not there.
    pub fn load(&self) -> Result<Hearing, Error> {
        let mut loaded = self.loaded.lock();
        let networks = match &*loaded {
            Some(networks) => networks.clone(),
            None => {
                let networks = Arc::new(self.networks()?);
                *loaded = Some(networks.clone());
                networks
            }
        };
        drop(loaded);
        let fallback = match (&networks.whisper, &networks.parakeet) {
            (None, None) => Some(Recognizer::load(Path::new(FALLBACK))?),
            _ => None,
        };
        Ok(Hearing { networks, fallback })
    }

    fn networks(&self) -> Result<Networks, Error> {
        let threads = Threads::new(self.models.threads());
        let parakeet = match &self.models.parakeet {
            Some(folder) => Some(Parakeet::open(folder, &threads)?),
            None => None,
        };
        let whisper = match self.models.have(Model::Whisper).filter(|_| parakeet.is_none()) {
            Some(folder) => Some(Whisper::load(folder, self.models.precision(), &threads)?),
            None => None,
        };
        let segmentation = self.models.have(Model::Segmentation);
        let diarizer = match segmentation.filter(|_| self.models.have(Model::Voiceprint).is_some()) {
            Some(folder) => Some(Diarizer::load(folder, &threads)?),
            None => None,
        };
        Ok(Networks { whisper, parakeet, diarizer })
    }
}

impl Hearing {
    /// The words of a recording at 16 kHz. A language is a code such as `de`; without one it is heard.
    ///
    /// # Errors
    /// When the speech software refuses.
    pub fn recognize(&mut self, samples: &[i16], language: Option<&str>) -> Result<Heard, Error> {
        let diarizer = self.networks.diarizer.as_ref();
        if let Some(parakeet) = &self.networks.parakeet {
            return by_parakeet(parakeet, diarizer, samples, language);
        }
        match (&self.networks.whisper, &mut self.fallback) {
            (Some(whisper), _) => transcribe(whisper, diarizer, samples, language),
            (None, Some(recognizer)) => {
                let sentences = recognize(recognizer, samples)?;
                Ok(Heard { sentences, language: "en".to_owned() })
            }
            (None, None) => Ok(Heard { sentences: Vec::new(), language: "en".to_owned() }),
        }
    }

    /// The turns of a recording at 16 kHz.
    ///
    /// # Errors
    /// When a network fails.
    pub fn diarize(&mut self, samples: &[i16]) -> Result<Vec<Turn>, Error> {
        match &self.networks.diarizer {
            Some(diarizer) => Ok(diarizer.turns(samples)?),
            None => Ok(diarize(samples)),
        }
    }
}

/// Cuts a recording at its pauses and writes down piece by piece, all in one language.
fn transcribe(
    whisper: &Whisper,
    diarizer: Option<&Diarizer>,
    samples: &[i16],
    language: Option<&str>,
) -> Result<Heard, Error> {
    let levels = activity::levels(samples);
    let speech = stretches(diarizer, samples, &levels)?;
    let pieces = activity::pieces(&speech, &levels, APART_FRAMES, LONGEST_FRAMES);
    let of = |index: usize| &samples[pieces[index].start * FRAME..pieces[index].end * FRAME];
    let sure = pieces.iter().position(|piece| piece.len() >= SURE_FRAMES);
    let Some(sure) = sure.or_else(|| (0..pieces.len()).max_by_key(|index| pieces[*index].len())) else {
        return Ok(Heard { sentences: Vec::new(), language: language.unwrap_or("en").to_owned() });
    };
    let mut first: Option<Piece> = Some(whisper.encode(of(sure), language)?);
    let language = first.as_ref().map_or("en", |piece| whisper.language(piece).0).to_owned();
    let mut sentences = Vec::new();
    for (index, frames) in pieces.iter().enumerate() {
        let encoded = if index == sure { first.take() } else { None };
        let encoded = match encoded {
            Some(encoded) => encoded,
            None => whisper.encode(of(index), Some(&language))?,
        };
        let mut words = moved(whisper.words(&encoded)?, frames.start);
        whisper::trim(&mut words, &speech);
        sentences.extend(split(words));
    }
    Ok(Heard { sentences, language })
}

/// Cuts a recording at its pauses and writes down piece by piece. The network does not say which language it hears.
fn by_parakeet(
    parakeet: &Parakeet,
    diarizer: Option<&Diarizer>,
    samples: &[i16],
    language: Option<&str>,
) -> Result<Heard, Error> {
    let levels = activity::levels(samples);
    let speech = stretches(diarizer, samples, &levels)?;
    let mut sentences = Vec::new();
    for frames in activity::pieces(&speech, &levels, APART_FRAMES, LONGEST_FRAMES) {
        let words = parakeet.words(&samples[frames.start * FRAME..frames.end * FRAME])?;
        sentences.extend(split(moved(words, frames.start)));
    }
    Ok(Heard { sentences, language: language.unwrap_or("en").to_owned() })
}

/// Where speech is, in frames of 10 ms. A network tells it from noise and music; levels alone do not.
fn stretches(
    diarizer: Option<&Diarizer>,
    samples: &[i16],
    levels: &[f32],
) -> Result<Vec<Range<usize>>, Error> {
    Ok(match diarizer {
        Some(diarizer) => diarizer.speech(samples)?,
        None => activity::speech(levels),
    })
}

/// Words of a piece that begins at a frame of 10 ms, in the time of the recording.
fn moved(mut words: Vec<Word>, frame: usize) -> Vec<Word> {
    let start_s = (frame * FRAME) as f64 / 16_000.0;
    for word in &mut words {
        word.start_s += start_s;
        word.end_s += start_s;
    }
    words
}

/// Cuts words at the ends of sentences.
fn split(words: Vec<Word>) -> Vec<Vec<Word>> {
    let mut sentences: Vec<Vec<Word>> = vec![Vec::new()];
    for word in words {
        let ends = ends_sentence(&word.text);
        if let Some(last) = sentences.last_mut() {
            last.push(word);
        }
        if ends {
            sentences.push(Vec::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Whether a word ends a sentence: by its mark, unless it is a title or an initial.
fn ends_sentence(word: &str) -> bool {
    const TITLES: [&str; 8] = ["Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Sr", "Jr"];
    let bare = word.trim_end_matches(['"', '\u{201d}', ')', '\'']);
    match bare.strip_suffix('.') {
        Some(rest) => !TITLES.contains(&rest) && rest.chars().count() > 1 && !rest.ends_with('.'),
        None => bare.ends_with(['?', '!', '。', '？', '！']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_marks_and_not_at_titles() {
        let word =
            |text: &str| Word { start_s: 0.0, end_s: 0.1, text: text.into(), confidence: 1.0, joined: false };
        let words = "Is Mr. Smith here? No. \"He left.\" J. Doe stays".split(' ').map(word).collect();
        let texts: Vec<String> = split(words)
            .iter()
            .map(|sentence| sentence.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(texts, ["Is Mr. Smith here?", "No.", "\"He left.\"", "J. Doe stays"]);
        assert!(split(Vec::new()).is_empty());
    }
}
