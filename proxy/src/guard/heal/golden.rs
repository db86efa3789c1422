//! Golden inputs and what makes an answer to them right: two spoken clips with their words, one sentence to speak.

use crate::audio::{quality, wav};
use crate::job::chat::Delta;
use crate::transcript::word_error::{bare_words, word_error};

/// A spoken sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// WAV, 16 kHz, mono, s16.
    pub wav: &'static [u8],
    /// What is said, normalised.
    pub words: &'static str,
}

/// Bytes of a clip before its samples.
const WAV_HEADER: usize = 44;

impl Clip {
    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.wav.len().saturating_sub(WAV_HEADER) as f64 / 32_000.0
    }
}

/// The first clip, a man's voice. It shares no word with [`CLIP_B`]: an engine that answers the same to both is not listening.
///
/// Made with the Flite voice `rms`; sentences and voices were chosen so that a small recogniser gets every word.
pub const CLIP_A: Clip =
    Clip { wav: include_bytes!("golden/a.wav"), words: "we will leave early tomorrow morning" };

/// The second clip, a woman's voice (Flite `slt`).
pub const CLIP_B: Clip =
    Clip { wav: include_bytes!("golden/b.wav"), words: "please open the window before dinner" };

/// The sentence to speak.
pub const SENTENCE: &str = "The morning train arrives at seven and leaves again at noon.";

/// The question to answer. Models differ in how they answer it; that they do is what is checked.
pub const QUESTION: &str = "Reply with the single word: ready";

/// Characters that a voice speaks in a second, about.
const CHARACTERS_PER_SECOND: f64 = 15.0;
/// What is wrong with the content of an answer.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The transcript has too many wrong words.
    #[error("word error {word_error:.2}")]
    Words {
        /// Wrong words over spoken words.
        word_error: f64,
    },
    /// Both clips gave the same text.
    #[error("the same text for two clips")]
    Alike,
    /// Not a reply of the protocol with a text.
    #[error("not a transcript")]
    NotTranscript,
    /// Not a reply of the protocol with an answer, or one that broke off.
    #[error("not an answer")]
    NotAnswer,
    /// An answer without a word, as a model gives whose numbers are lost.
    #[error("no word in the answer")]
    NoWord,
    /// Not a reply of the protocol with audio.
    #[error("not speech")]
    NotSpeech,
    /// No audio at all.
    #[error("no audio")]
    NoAudio,
    /// Not a WAV file of 16-bit samples.
    #[error("not a 16-bit WAV file")]
    NotWav,
    /// The header announces other than what follows.
    #[error("the WAV header announces {announced} bytes of {present}")]
    Length {
        /// Bytes of samples by the header.
        announced: u64,
        /// Bytes that follow.
        present: u64,
    },
    /// Far too short or too long for the sentence.
    #[error("{seconds:.2} s of audio")]
    Duration {
        /// Its length.
        seconds: f64,
    },
    /// Not speech by its samples.
    #[error(transparent)]
    Samples(#[from] quality::Fault),
}

/// Whether `text` is what the clip says, but for a share `max_word_error` of its words.
///
/// # Errors
/// [`Fault::Words`].
pub fn check_transcript(clip: &Clip, text: &str, max_word_error: f64) -> Result<(), Fault> {
    let word_error = word_error(clip.words, text);
    if word_error <= max_word_error { Ok(()) } else { Err(Fault::Words { word_error }) }
}

/// Whether an answer to [`QUESTION`] has a word. A model that thought for so long that it may say nothing has worked too.
///
/// # Errors
/// [`Fault::NoWord`].
pub fn check_answer(said: &[Delta]) -> Result<(), Fault> {
    let is_word = |delta: &Delta| match delta {
        Delta::Text(text) => text.chars().any(char::is_alphanumeric),
        Delta::Thought | Delta::Calls(_) => true,
        Delta::End(_) | Delta::Usage { .. } => false,
    };
    if said.iter().any(is_word) { Ok(()) } else { Err(Fault::NoWord) }
}

/// Whether the texts of two clips differ, as they must.
pub fn unlike(text_a: &str, text_b: &str) -> bool {
    bare_words(text_a) != bare_words(text_b)
}

/// The samples of a [`Clip`] without their header: s16le, mono, 16 kHz.
///
/// # Errors
/// [`Fault::NotWav`] and [`Fault::Length`] when it is no such file.
pub fn samples(clip: &Clip) -> Result<&'static [u8], Fault> {
    Ok(read(clip.wav)?.1)
}

/// Whether an answer can be speech of [`SENTENCE`]: a WAV file, or raw s16le mono samples of `rate` a second.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check_speech(speech: &[u8], rate: u32) -> Result<(), Fault> {
    let (rate, channels, data) = match speech.starts_with(b"RIFF") {
        true => {
            let (wav, data) = read(speech)?;
            (wav.rate, usize::from(wav.channels), data)
        }
        false if speech.is_empty() => return Err(Fault::NoAudio),
        false => (rate.max(1), 1, speech),
    };
    let samples: Vec<i16> =
        data.chunks_exact(2).step_by(channels).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let seconds = samples.len() as f64 / f64::from(rate);
    let expected = SENTENCE.len() as f64 / CHARACTERS_PER_SECOND;
    if !(expected / 2.0..=expected * 2.0).contains(&seconds) {
        return Err(Fault::Duration { seconds });
    }
    Ok(quality::check(&samples)?)
}

/// The header and the samples of a 16-bit WAV file, which must be as many as announced.
fn read(file: &[u8]) -> Result<(wav::Wav, &[u8]), Fault> {
    let wav = wav::parse(file).ok_or(Fault::NotWav)?;
    if wav.coding != wav::Coding::Pcm || wav.bits != 16 || wav.channels == 0 || wav.rate == 0 {
        return Err(Fault::NotWav);
    }
    let data = wav.data(file);
    let present = data.len() as u64;
    // Servers that stream do not know the length yet.
    let announced = wav.data_len.unwrap_or(present);
    if present == 0 || present < announced {
        return Err(Fault::Length { announced, present });
    }
    Ok((wav, data))
}

#[cfg(test)]
mod tests;
