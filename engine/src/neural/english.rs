//! English text to phonemes: dictionaries, the part of speech where a word has several sounds, and a small network for unknown
//! words. They are published with the voice hibari, in the symbols that Kokoro takes too.

mod lexicon;
mod phonemes;
mod tagger;

use std::path::Path;

use rten::{Value, ValueOrView};
use rten_tensor::NdTensor;
use serde::Deserialize;

use super::net::{Net, Threads};
use super::{Error, files};
use crate::ffi::analysis::analyze;
use lexicon::Lexicon;
use phonemes::phonemes;
use tagger::Tagger;

/// A table is no longer, unpacked.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// What is published of the network for unknown words.
#[derive(Deserialize)]
struct Letters {
    #[serde(rename = "in")]
    letters: Vec<char>,
    #[serde(rename = "out")]
    sounds: Vec<String>,
    maxlen: usize,
}

/// The tables and the network, loaded.
pub struct English {
    reader: Net,
    letters: Letters,
    lexicon: Lexicon,
    tagger: Tagger,
}

impl English {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let malformed = |file| move |_| Error::Format { file, reason: "not of the expected form" };
        let (gold, silver) = ("hibari/lexicon_us_gold.json.gz", "hibari/lexicon_us_silver.json.gz");
        let tables =
            [files::gunzip(models, gold, MAX_TABLE_BYTES)?, files::gunzip(models, silver, MAX_TABLE_BYTES)?];
        let lexicon = Lexicon::parse(&tables[0], &tables[1])
            .ok_or(Error::Format { file: gold, reason: "not a dictionary" })?;
        let tagger = "hibari/tagger.json.gz";
        let tagger_text = files::gunzip(models, tagger, MAX_TABLE_BYTES)?;
        let letters = "hibari/oov.json";
        Ok(Self {
            reader: Net::load("hibari reader", files::read(models, "hibari/oov.onnx")?, None, threads)?,
            letters: serde_json::from_slice(&files::read(models, letters)?).map_err(malformed(letters))?,
            lexicon,
            tagger: serde_json::from_str(&tagger_text).map_err(malformed(tagger))?,
        })
    }

    /// The phonemes of one sentence.
    ///
    /// # Errors
    /// When the text cannot be analysed, or the network fails.
    pub fn phonemes(&self, sentence: &str) -> Result<String, Error> {
        let tokens = analyze(sentence)?;
        let mut failed = None;
        let sounds = phonemes(&tokens, &self.lexicon, &self.tagger, &mut |word| {
            self.read(word).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        failed.map_or(Ok(sounds), Err)
    }

    /// The sound of a word that is in no dictionary, read letter by letter.
    fn read(&self, word: &str) -> Result<Option<String>, Error> {
        let place = |letter: char| self.letters.letters.iter().position(|known| *known == letter);
        let ids: Vec<i32> = word
            .chars()
            .filter_map(|letter| i32::try_from(place(letter)? + 1).ok())
            .take(self.letters.maxlen)
            .collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let ids = NdTensor::from_data([1, ids.len()], ids);
        let Some(Value::Int32Tensor(steps)) =
            self.reader.run(vec![ValueOrView::from(ids)])?.into_iter().next()
        else {
            return Err(self.reader.unexpected());
        };
        let (mut sounds, mut before) = (String::new(), 0);
        for step in steps.into_data() {
            if step != before && step > 0 {
                let sound = usize::try_from(step - 1).ok().and_then(|place| self.letters.sounds.get(place));
                sounds.push_str(sound.map_or("", String::as_str));
            }
            before = step;
        }
        Ok(Some(sounds))
    }
}
