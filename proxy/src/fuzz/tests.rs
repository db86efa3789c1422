//! The corpus, files that our own encoders write, and mutations of both.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::audio::signal::speech;
use crate::audio::{Encoder, OutputFormat};
use crate::rng::Rng;

/// Mutations of each input.
const MUTATIONS: usize = 24;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn files() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for format in
        [OutputFormat::Wav, OutputFormat::Flac, OutputFormat::Opus, OutputFormat::Webm, OutputFormat::Mp3]
    {
        let mut encoder = Encoder::new(format, 16_000).unwrap();
        let mut file = encoder.encode(&speech(16_000, 0.3)).unwrap().to_vec();
        file.extend(encoder.finish().unwrap());
        all.push(file);
    }
    all
}

/// Cuts, changes or doubles a stretch.
fn mutated(input: &[u8], rng: &Rng) -> Vec<u8> {
    let below = |most: usize| (rng.roll() % most.max(1) as u64) as usize;
    let mut output = input.to_vec();
    for _ in 0..=below(4) {
        if output.is_empty() {
            break;
        }
        let at = below(output.len());
        match below(5) {
            0 => output.truncate(at),
            1 => output[at] ^= 1 << below(8),
            2 => output[at] = [0x00, 0xFF, 0x7F, 0x80][below(4)],
            3 => {
                let end = (at + 1 + below(64)).min(output.len());
                output.drain(at..end);
            }
            _ => {
                let end = (at + 1 + below(64)).min(output.len());
                let stretch = output[at..end].to_vec();
                output.splice(at..at, stretch);
            }
        }
    }
    output
}

#[test]
fn no_target_fails_on_the_corpus_or_what_is_near_it() {
    let rng = Rng::new(11);
    for (name, target) in TARGETS {
        let mut inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name}");
        if matches!(name, "audio" | "head") {
            inputs.extend(files());
        }
        for input in &inputs {
            target(input);
            for _ in 0..MUTATIONS {
                target(&mutated(input, &rng));
            }
        }
    }
}

#[test]
fn mutations_differ_from_their_input_and_from_each_other() {
    let rng = Rng::new(11);
    let input: Vec<u8> = (0..200).collect();
    let all: std::collections::HashSet<_> = (0..50).map(|_| mutated(&input, &rng)).collect();
    assert!(all.len() > 30, "{}", all.len());
}
