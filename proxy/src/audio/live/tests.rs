//! Recordings in pieces against the same files decoded as a whole.

use std::io::Cursor;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::audio::Container;
use crate::audio::convert::{Limits, to_pcm};

const RECORDINGS: [&str; 3] = ["live.webm", "opus.webm", "opus-stereo.ogg"];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn heard(file: &[u8], piece: usize) -> Result<Vec<f32>, Error> {
    let mut recording = Recording::of(file).unwrap();
    let mut samples = Vec::new();
    for piece in file.chunks(piece.max(1)) {
        recording.push(piece, &mut samples)?;
    }
    Ok(samples)
}

#[test]
fn a_recording_in_pieces_is_the_file_as_a_whole() {
    for name in RECORDINGS {
        let file = fixture(name);
        let mut whole = Vec::new();
        let limits = Limits { max_seconds: 60.0, rate: crate::audio::convert::RATE, stop: Arc::default() };
        let container = Container::sniff(&file).unwrap();
        to_pcm(Cursor::new(file.clone()), container, &limits, &mut whole).unwrap();
        let whole: Vec<f32> = whole
            .as_chunks()
            .0
            .iter()
            .map(|sample| f32::from(i16::from_le_bytes(*sample)) / 32_768.0)
            .collect();
        for piece in [1, 333, 4096, file.len()] {
            let samples = heard(&file, piece).unwrap();
            // The end of the last packet may be padding, which only a whole file tells.
            assert!((whole.len()..whole.len() + 2_000).contains(&samples.len()), "{name}: {}", samples.len());
            let worst = whole.iter().zip(&samples).map(|(left, right)| (left - right).abs());
            let worst = worst.fold(0.0, f32::max);
            assert!(worst < 0.001, "{name} in pieces of {piece}: {worst}");
        }
    }
}

#[test]
fn a_recording_that_is_begun_anew_goes_on() {
    let file = fixture("live.webm");
    let once = heard(&file, 1_000).unwrap().len();
    assert_eq!(heard(&[&file[..], &file[..]].concat(), 1_000).unwrap().len(), 2 * once);
}

#[test]
fn other_codecs_and_damage_are_told() {
    assert!(Recording::of(b"RIFF").is_none() && Recording::of(b"Og").is_none());
    assert_eq!(heard(&fixture("vorbis.webm"), 500), Err(Error::Codec { codec: "A_VORBIS".into() }));
    assert_eq!(heard(&fixture("vorbis.ogg"), 500), Err(Error::Codec { codec: "vorbis".into() }));
    let mut broken = fixture("opus-stereo.ogg");
    let page = broken.windows(4).rposition(|four| four == b"OggS").unwrap();
    broken[page] = b'X';
    assert!(matches!(heard(&broken, 700), Err(Error::Damaged { .. })));
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_samples(pieces in prop::collection::vec(1_usize..3_000, 1..40)) {
        let file = fixture("live.webm");
        let mut recording = Recording::of(&file).unwrap();
        let (mut samples, mut at) = (Vec::new(), 0);
        for piece in pieces.iter().cycle() {
            let end = (at + piece).min(file.len());
            recording.push(&file[at..end], &mut samples).unwrap();
            at = end;
            if at == file.len() {
                break;
            }
        }
        prop_assert_eq!(samples, heard(&file, file.len()).unwrap());
    }

    #[test]
    fn damaged_bytes_never_panic_and_keep_little(
        at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..400), which in 0_usize..3,
    ) {
        let mut file = fixture(RECORDINGS[which]);
        let at = at.index(file.len() - MAGIC_BYTES) + MAGIC_BYTES;
        let end = (at + noise.len()).min(file.len());
        file[at..end].copy_from_slice(&noise[..end - at]);
        let _ = heard(&file, 777);
        let alone = [webm::MAGIC, &noise[..]].concat();
        let _ = heard(&alone, 3);
    }
}
