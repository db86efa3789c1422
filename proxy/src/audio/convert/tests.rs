//! Files of every container, whole, cut and damaged, against the signal that they were made of.

use std::io::Cursor;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::audio::signal::sweep;
use crate::audio::{Encoder, OutputFormat, wav};

const FIXTURES: [&str; 17] = [
    "opus.webm",
    "live.webm",
    "vorbis.webm",
    "vorbis.ogg",
    "opus-stereo.ogg",
    "flac.oga",
    "aac.m4a",
    "fragmented.mp4",
    "opus.mp4",
    "alac.m4a",
    "aac.mov",
    "aac.aac",
    "pcm.aiff",
    "ulaw.aifc",
    "pcm.caf",
    "adpcm.wav",
    "lame.mp3",
];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn limits(max_seconds: f64) -> Limits {
    Limits { max_seconds, rate: RATE, stop: Arc::default() }
}

/// Converts a file whose container is found by its content.
fn convert(file: &[u8]) -> Result<(Converted, Vec<i16>), Error> {
    let container = Container::sniff(file).unwrap_or(Container::Mp3);
    let mut out = Vec::new();
    let converted = to_pcm(Cursor::new(file.to_vec()), container, &limits(3600.0), &mut out)?;
    let samples: Vec<i16> = out.as_chunks().0.iter().copied().map(i16::from_le_bytes).collect();
    assert_eq!(samples.len() as u64, converted.samples);
    Ok((converted, samples))
}

/// The sweep as 16-bit samples.
fn sweep_pcm(rate: u32) -> Vec<i16> {
    sweep(rate).iter().map(|sample| (sample * 32_768.0).round() as i16).collect()
}

/// The greatest correlation with the sweep at 16 kHz, at which lag in samples of at most `max_lag`, and the levels' ratio in dB.
fn compare(samples: &[i16], max_lag: i64) -> (f64, i64, f64) {
    let original = sweep(RATE);
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let (of_original, of_samples) = (
        energy(&mut original.iter().copied()),
        energy(&mut samples.iter().map(|sample| f64::from(*sample) / 32_768.0)),
    );
    let at_lag = |lag: i64| -> f64 {
        original
            .iter()
            .enumerate()
            .filter_map(|(at, value)| {
                let sample = samples.get(usize::try_from(at as i64 + lag).ok()?)?;
                Some(value * f64::from(*sample) / 32_768.0)
            })
            .sum()
    };
    let (product, lag) = (-20..=max_lag)
        .map(|lag| (at_lag(lag), lag))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .unwrap();
    (product / (of_original * of_samples).sqrt(), lag, 10.0 * (of_samples / of_original).log10())
}

/// Asserts that a file is the sweep, to 30 ms in length and to `max_lag` samples in time.
fn assert_sweep(name: &str, file: &[u8], max_lag: i64) -> Converted {
    let (converted, samples) = convert(file).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (correlation, lag, level) = compare(&samples, max_lag + 20);
    let extra = samples.len() as i64 - 24_000;
    assert!(correlation > 0.96, "{name}: correlation {correlation} at {lag}");
    assert!(lag.abs() <= max_lag, "{name}: {lag} samples late");
    assert!(level.abs() < 0.5, "{name}: {level} dB");
    assert!(extra.abs() <= 480 + max_lag, "{name}: {extra} samples more");
    converted
}

#[test]
fn every_container_gives_the_signal_in_place() {
    for name in FIXTURES {
        let file = fixture(name);
        // What does not state its priming keeps it: of AAC a frame or two. Of the others a millisecond.
        let max_lag = match name {
            "aac.aac" => 1366,
            "fragmented.mp4" => 388,
            _ => 16,
        };
        assert_sweep(name, &file, max_lag);
    }
}

#[test]
fn what_is_encoded_here_converts_back() {
    for (format, rate, max_lag) in [
        (OutputFormat::Wav, 16_000, 0),
        (OutputFormat::Wav, 44_100, 1),
        (OutputFormat::Wav, 8_000, 1),
        (OutputFormat::Flac, 24_000, 1),
        (OutputFormat::Opus, 24_000, 16),
        // No header states the delay of encoder and decoder.
        #[cfg(feature = "mp3lame")]
        (OutputFormat::Mp3, 24_000, 1200),
    ] {
        let mut encoder = Encoder::new(format, rate).unwrap();
        let mut file = encoder.encode(&sweep_pcm(rate)).unwrap().to_vec();
        file.extend(encoder.finish().unwrap());
        assert_sweep(&format!("{format:?} of {rate} Hz"), &file, max_lag);
    }
}

/// A WAV file of `rate` Hz: `encode` writes one sample; an extensible header if `extensible`.
fn wav_of(
    rate: u32,
    channels: u16,
    tag: u16,
    bits: u16,
    extensible: bool,
    encode: impl Fn(f64) -> Vec<u8>,
) -> Vec<u8> {
    let block = channels * bits / 8;
    let mut format = Vec::new();
    format.extend(if extensible { 0xFFFE } else { tag }.to_le_bytes());
    format.extend(channels.to_le_bytes());
    format.extend(rate.to_le_bytes());
    format.extend((rate * u32::from(block)).to_le_bytes());
    format.extend(block.to_le_bytes());
    format.extend(bits.to_le_bytes());
    if extensible {
        format.extend([22, 0, bits as u8, 0, 0, 0, 0, 0]);
        format.extend(tag.to_le_bytes());
        format.extend(b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    }
    let mut file = b"RIFF\0\0\0\0WAVEJUNK\x05\0\0\0abcde\0fmt ".to_vec();
    file.extend((format.len() as u32).to_le_bytes());
    file.extend(format);
    file.extend(b"data\0\0\0\0");
    for sample in sweep(rate) {
        // Channels differ, their mean is the signal.
        for channel in 0..channels {
            let share = if channels == 1 { 1.0 } else { 2.0 * f64::from(channel) / f64::from(channels - 1) };
            file.extend(encode(sample * share));
        }
    }
    file
}

fn mu_law(sample: f64) -> u8 {
    let level = ((sample.abs() * 32_768.0) as i32).min(32_635) + 0x84;
    let segment = 24 - level.leading_zeros() as i32;
    let code = segment << 4 | (level >> (segment + 3) & 0x0F);
    !(code as u8 | if sample < 0.0 { 0x80 } else { 0 })
}

#[test]
fn wav_samples_of_every_size_are_read() {
    let int = |bits: u32| move |sample: f64| (sample * f64::from(1_u32 << (bits - 1))) as i32;
    for extensible in [false, true] {
        for channels in [1, 2, 6] {
            let wav = |tag, bits, encode: &dyn Fn(f64) -> Vec<u8>| {
                let file = wav_of(48_000, channels, tag, bits, extensible, encode);
                let name = format!("{tag} {bits} {channels} {extensible}");
                let converted = assert_sweep(&name, &file, 1);
                assert_eq!((converted.source_rate, converted.source_channels), (48_000, channels));
            };
            wav(1, 8, &|sample| vec![(int(8)(sample) + 128) as u8]);
            wav(1, 16, &|sample| (int(16)(sample) as i16).to_le_bytes().to_vec());
            wav(1, 24, &|sample| int(24)(sample).to_le_bytes()[..3].to_vec());
            wav(1, 32, &|sample| int(32)(sample).to_le_bytes().to_vec());
            wav(3, 32, &|sample| (sample as f32).to_le_bytes().to_vec());
            wav(3, 64, &|sample| sample.to_le_bytes().to_vec());
            wav(7, 8, &|sample| vec![mu_law(sample)]);
        }
    }
}

#[test]
fn samples_of_16_khz_are_not_changed() {
    let pcm: Vec<i16> = (0..=u16::MAX).map(u16::cast_signed).collect();
    let data: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    // An odd byte at the end is dropped.
    let file = [&wav::header(16_000, 1, None)[..], &data, &[7]].concat();
    assert_eq!(convert(&file).unwrap().1, pcm);
}

#[test]
fn what_is_not_a_number_is_silence_and_the_rest_is_limited() {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, 1.5, -1.5, 0.5];
    let file = |rate| {
        let mut file = wav_of(rate, 1, 3, 32, false, |_| Vec::new());
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        file
    };
    let samples = convert(&file(16_000)).unwrap().1;
    assert_eq!(samples, [0, i16::MAX, i16::MIN, i16::MAX, i16::MAX, i16::MIN, 16_384]);
    convert(&file(48_000)).unwrap();
}

#[test]
fn lengths_in_wav_headers_need_not_be_true() {
    for len in [0, 36, 0x7FFF_FFFF, 0x7FFF_FFFF - 36, 1_000_000, u32::MAX] {
        let mut file = wav::header(16_000, 1, None).to_vec();
        file[40..44].copy_from_slice(&u32::to_le_bytes(len));
        file[4..8].copy_from_slice(&36_u32.to_le_bytes());
        file.resize(44 + 3200, 1);
        assert_eq!(convert(&file).unwrap().0.samples, 1600, "{len}");
    }
    let mut file = wav::header(16_000, 1, Some(1600)).to_vec();
    file.resize(44 + 3200, 1);
    assert_eq!(convert(&file).unwrap().0.samples, 800);
}

#[test]
fn quicktime_without_its_first_box_is_read() {
    for name in ["aac.mov", "aac.m4a"] {
        let mut file = fixture(name);
        file[4..8].copy_from_slice(b"skip");
        assert_eq!(Container::sniff(&file), Some(Container::Mp4));
        assert_sweep(name, &file, 16);
    }
}

#[test]
fn he_aac_gives_its_core() {
    let mut file = fixture("aac.m4a");
    // AAC-LC of 44.1 kHz: an AudioSpecificConfig of two or five bytes behind its tag.
    let config = memchr::memmem::find(&file, b"\x05\x80\x80\x80").unwrap();
    assert_eq!(file[config + 5..config + 7], [0x12, 0x08]);
    // HE-AAC with a core of 44.1 kHz mono: type 5, extended to the same rate, type 2.
    assert!(file[config + 4] >= 4, "{}", file[config + 4]);
    file[config + 5..config + 9].copy_from_slice(&[0x2A, 0x0A, 0x08, 0x00]);
    assert_sweep("HE-AAC", &file, 16);
}

#[test]
fn streams_one_after_the_other_are_one_recording() {
    let chained = [fixture("opus-stereo.ogg"), fixture("vorbis.ogg")].concat();
    let (converted, samples) = convert(&chained).unwrap();
    assert!((47_500..48_600).contains(&samples.len()), "{}", samples.len());
    assert_eq!(converted.source_channels, 2);
    assert!(compare(&samples[..24_000], 20).0 > 0.98);
    let (correlation, lag, _) = compare(&samples[24_000..], 500);
    assert!(correlation > 0.98 && lag.abs() < 500, "{correlation} at {lag}");
}

#[test]
fn a_file_that_breaks_off_gives_what_it_has() {
    for name in ["live.webm", "opus.webm", "vorbis.ogg", "fragmented.mp4", "aac.aac", "lame.mp3", "pcm.aiff"]
    {
        let file = fixture(name);
        let (_, samples) =
            convert(&file[..file.len() * 8 / 10]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((12_000..22_000).contains(&samples.len()), "{name}: {}", samples.len());
    }
}

#[test]
fn a_movie_index_at_the_end_that_is_cut_off_is_an_error() {
    let file = fixture("aac.m4a");
    assert!(matches!(convert(&file[..file.len() / 2]), Err(Error::Corrupted { .. })));
}

#[test]
fn files_without_audio_are_errors() {
    assert!(matches!(convert(&wav::header(16_000, 1, None)), Err(Error::NoAudio)));
    for format in [OutputFormat::Flac, OutputFormat::Opus] {
        let empty = Encoder::new(format, 16_000).unwrap().finish().unwrap();
        let result = convert(&empty);
        assert!(matches!(result, Err(Error::NoAudio | Error::Corrupted { .. })), "{result:?}");
    }
    for container in
        [Container::Wav, Container::Mp4, Container::WebM, Container::Ogg, Container::Mp3, Container::Flac]
    {
        for junk in [&b""[..], b"RIFF", b"hello, this is no audio at all", &[0; 10_000]] {
            let result = to_pcm(Cursor::new(junk.to_vec()), container, &limits(10.0), &mut Vec::new());
            assert!(
                matches!(result, Err(Error::Corrupted { .. } | Error::NoAudio)),
                "{container:?}: {result:?}"
            );
        }
    }
}

#[test]
fn codecs_without_a_decoder_are_named() {
    let mut file = fixture("aac.m4a");
    let at = memchr::memmem::find(&file, b"mp4a").unwrap();
    file[at..at + 4].copy_from_slice(b"samr");
    let error = convert(&file).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedCodec { codec } if codec == "samr"), "{error:?}");
    let error = convert(b"#!AMR\n\x3c").unwrap_err();
    assert!(matches!(&error, Error::UnsupportedCodec { codec } if codec == "amr"), "{error:?}");
    let mut file = fixture("aac.m4a");
    let config = memchr::memmem::find(&file, b"\x05\x80\x80\x80").unwrap();
    // Low delay.
    file[config + 5..config + 7].copy_from_slice(&[0xB9, 0x08]);
    let error = convert(&file).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedCodec { .. } | Error::Corrupted { .. }), "{error:?}");
}

#[test]
fn limits_end_a_conversion() {
    let file = fixture("lame.mp3");
    let result = to_pcm(Cursor::new(file.clone()), Container::Mp3, &limits(0.5), &mut Vec::new());
    assert!(matches!(result, Err(Error::TooLong { .. })), "{result:?}");
    assert!(to_pcm(Cursor::new(file.clone()), Container::Mp3, &limits(1.6), &mut Vec::new()).is_ok());
    for name in FIXTURES {
        let file = fixture(name);
        let container = Container::sniff(&file).unwrap();
        let limits = limits(10.0);
        limits.stop.store(true, Ordering::Relaxed);
        let result = to_pcm(Cursor::new(file), container, &limits, &mut Vec::new());
        assert!(matches!(result, Err(Error::Cancelled)), "{name}: {result:?}");
    }
}

/// Sets the flag on its first write.
struct Stopper(Arc<AtomicBool>);

impl Write for Stopper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.store(true, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Fails like a disk.
struct Broken<T>(T);

impl Read for Broken<Cursor<Vec<u8>>> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.0.position() > 2000 { Err(std::io::ErrorKind::TimedOut.into()) } else { self.0.read(bytes) }
    }
}

impl Seek for Broken<Cursor<Vec<u8>>> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

impl Write for Broken<()> {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_of_reader_and_writer_are_distinguished() {
    let file = [&wav::header(16_000, 1, None)[..], &[1; 100_000]].concat();
    for (file, container) in [(file, Container::Wav), (fixture("vorbis.ogg"), Container::OggVorbis)] {
        let source = || Cursor::new(file.clone());
        let result = to_pcm(source(), container, &limits(10.0), &mut Broken(()));
        assert!(matches!(result, Err(Error::Write(_))), "{result:?}");
        let result = to_pcm(Broken(source()), container, &limits(10.0), &mut Vec::new());
        assert!(matches!(result, Err(Error::Read(_))), "{result:?}");
        let limits = limits(10.0);
        let mut stopper = Stopper(Arc::clone(&limits.stop));
        let result = to_pcm(source(), container, &limits, &mut stopper);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let mut files: Vec<Vec<u8>> = FIXTURES.iter().map(|name| fixture(name)).collect();
    for format in [OutputFormat::Wav, OutputFormat::Flac] {
        let mut encoder = Encoder::new(format, 8_000).unwrap();
        let head = encoder.encode(&sweep_pcm(8_000)).unwrap();
        files.push([&head[..], &encoder.finish().unwrap()].concat());
    }
    prop::sample::select(files)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_never_panics_and_never_gives_an_empty_result(
        mut file in any_file(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 0..20),
        in_head in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let container = Container::sniff(&file).unwrap();
        let len = if in_head { file.len().min(600) } else { file.len() };
        for (at, bit) in flips {
            file[at.index(len)] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len() + 1));
        }
        let mut out = Vec::new();
        if let Ok(converted) = to_pcm(Cursor::new(file), container, &limits(60.0), &mut out) {
            prop_assert!(converted.samples > 0);
            prop_assert_eq!(out.len() as u64, converted.samples * 2);
        }
    }
}
