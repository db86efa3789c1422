//! Golden inputs and what makes an answer to them right: two spoken clips with their words, one sentence to speak.

use std::collections::HashSet;

/// A spoken sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// WAV, 16 kHz, mono, s16.
    pub wav: &'static [u8],
    /// What is said, normalised.
    pub words: &'static str,
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

/// Characters that a voice speaks in a second, about.
const CHARACTERS_PER_SECOND: f64 = 15.0;
/// Loudness below which speech counts as silence, dB of full scale.
const SILENCE_DBFS: f64 = -50.0;
/// Correlation of neighbouring samples below which it is noise; speech has 0.7 and more.
const NOISE_CORRELATION: f64 = 0.3;

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
    /// Nearly silent.
    #[error("silence at {dbfs:.0} dBFS")]
    Silence {
        /// Its root mean square.
        dbfs: f64,
    },
    /// The samples take hardly any values.
    #[error("{distinct} distinct sample values")]
    Constant {
        /// How many.
        distinct: usize,
    },
    /// Too many samples are at full scale.
    #[error("{share:.2} of the samples clip")]
    Clipping {
        /// Share of all samples.
        share: f64,
    },
    /// Noise, not speech.
    #[error("noise")]
    Noise,
}

/// Wrong, missing and extra words over spoken words; 0 is perfect.
pub fn word_error(spoken: &str, heard: &str) -> f64 {
    let (spoken, heard) = (normalise(spoken), normalise(heard));
    if spoken.is_empty() {
        return if heard.is_empty() { 0.0 } else { 1.0 };
    }
    // Levenshtein distance on words, one row at a time.
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (at, word) in spoken.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in heard.iter().enumerate() {
            let substituted = diagonal + usize::from(word != other);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[heard.len()] as f64 / spoken.len() as f64
}

/// Lower-case words without punctuation.
fn normalise(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .map(|word| word.trim_matches('\'').to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Whether `text` is what the clip says, but for a share `max_word_error` of its words.
///
/// # Errors
/// [`Fault::Words`].
pub fn check_transcript(clip: &Clip, text: &str, max_word_error: f64) -> Result<(), Fault> {
    let word_error = word_error(clip.words, text);
    if word_error <= max_word_error { Ok(()) } else { Err(Fault::Words { word_error }) }
}

/// Whether the texts of two clips differ, as they must.
pub fn unlike(text_a: &str, text_b: &str) -> bool {
    normalise(text_a) != normalise(text_b)
}

/// The samples of a [`Clip`] without their header: s16le, mono, 16 kHz.
///
/// # Errors
/// [`Fault::NotWav`] and [`Fault::Length`] when it is no such file.
pub fn samples(clip: &Clip) -> Result<&'static [u8], Fault> {
    Ok(Wave::parse(clip.wav)?.data)
}

/// Whether an answer can be speech of [`SENTENCE`]: a WAV file, or raw s16le mono samples of `rate` a second.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check_speech(speech: &[u8], rate: u32) -> Result<(), Fault> {
    let wave = match speech.starts_with(b"RIFF") {
        true => Wave::parse(speech)?,
        false if speech.is_empty() => return Err(Fault::NoAudio),
        false => Wave { rate: f64::from(rate.max(1)), channels: 1, data: speech },
    };
    let samples: Vec<f64> = wave
        .data
        .chunks_exact(2)
        .step_by(wave.channels)
        .map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    let seconds = samples.len() as f64 / wave.rate;
    let expected = SENTENCE.len() as f64 / CHARACTERS_PER_SECOND;
    if !(expected / 2.0..=expected * 2.0).contains(&seconds) {
        return Err(Fault::Duration { seconds });
    }
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let power = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count;
    let dbfs = 10.0 * (power / f64::from(i16::MAX).powi(2)).max(1e-12).log10();
    if dbfs <= SILENCE_DBFS {
        return Err(Fault::Silence { dbfs });
    }
    let distinct = samples.iter().map(|sample| *sample as i16).collect::<HashSet<_>>().len();
    if distinct < samples.len().min(usize::from(u16::MAX)) / 100 {
        return Err(Fault::Constant { distinct });
    }
    let clipped = samples.iter().filter(|sample| sample.abs() >= f64::from(i16::MAX)).count();
    let share = clipped as f64 / count;
    if share > 0.2 {
        return Err(Fault::Clipping { share });
    }
    let shared: f64 = samples.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>() / count;
    if shared / power < NOISE_CORRELATION {
        return Err(Fault::Noise);
    }
    Ok(())
}

/// The parts of a WAV file that matter here.
struct Wave<'wav> {
    rate: f64,
    channels: usize,
    data: &'wav [u8],
}

impl<'wav> Wave<'wav> {
    /// Reads the chunks of a RIFF file; its `data` must be as long as announced.
    fn parse(wav: &'wav [u8]) -> Result<Self, Fault> {
        let header = wav.get(..12).ok_or(Fault::NotWav)?;
        if &header[..4] != b"RIFF" || &header[8..] != b"WAVE" {
            return Err(Fault::NotWav);
        }
        let mut rest = &wav[12..];
        let mut format = None;
        while let Some((chunk, body)) = rest.split_at_checked(8) {
            let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
            if &chunk[..4] == b"data" {
                let (rate, channels) = format.ok_or(Fault::NotWav)?;
                // Servers that stream do not know the length yet and announce the largest.
                let known = if length == u32::MAX as usize { body.len() } else { length };
                let data = body
                    .get(..known)
                    .filter(|data| !data.is_empty())
                    .ok_or(Fault::Length { announced: length as u64, present: body.len() as u64 })?;
                return Ok(Self { rate, channels, data });
            }
            if &chunk[..4] == b"fmt " {
                format = Some(read_format(body.get(..length).ok_or(Fault::NotWav)?)?);
            }
            rest = body.get(length + length % 2..).ok_or(Fault::NotWav)?;
        }
        Err(Fault::NotWav)
    }
}

/// Sample rate in Hz and channels of a `fmt ` chunk.
fn read_format(chunk: &[u8]) -> Result<(f64, usize), Fault> {
    const PCM: u16 = 1;
    const EXTENSIBLE: u16 = 0xFFFE;
    let chunk = chunk.get(..16).ok_or(Fault::NotWav)?;
    let word = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    let channels = usize::from(word(2));
    if !matches!(word(0), PCM | EXTENSIBLE) || word(14) != 16 || channels == 0 || rate == 0 {
        return Err(Fault::NotWav);
    }
    Ok((f64::from(rate), channels))
}

#[cfg(test)]
mod tests;
