//! What is encoded decodes again, by an independent decoder, to the same audio.

use std::io::Cursor;

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error as DecodeError;
use symphonia::core::formats::{FormatOptions, TrackType, probe::Hint};
use symphonia::core::io::{MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;

use super::*;
use crate::audio::duration::estimate;
use crate::audio::format::Container;
use crate::audio::signal::{self, speech};

/// Decodes a file read as a stream; samples and their rate.
fn decode(file: Bytes) -> (Vec<i16>, u32) {
    let source = MediaSourceStream::new(Box::new(ReadOnlySource::new(Cursor::new(file))), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default())
        .unwrap();
    let mut registry = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut registry);
    registry.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    let track = format.default_track(TrackType::Audio).unwrap();
    let parameters = track.codec_params.as_ref().unwrap().audio().unwrap();
    let mut decoder = registry.make_audio_decoder(parameters, &AudioDecoderOptions::default()).unwrap();
    let (mut pcm, mut rate) = (Vec::new(), 0);
    loop {
        match format.next_packet() {
            Ok(Some(packet)) => {
                let decoded = decoder.decode(&packet).unwrap();
                let mut samples = vec![0i16; decoded.samples_interleaved()];
                decoded.copy_to_slice_interleaved(&mut samples);
                rate = decoded.spec().rate();
                assert_eq!(decoded.spec().channels().count(), 1);
                pcm.extend(samples);
            }
            Ok(None) => return (pcm, rate),
            Err(DecodeError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return (pcm, rate);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The pieces that leave the encoder when it is fed `chunk` samples at a time; the last is from `finish`.
fn pieces(format: OutputFormat, rate: u32, pcm: &[i16], chunk: usize) -> Vec<Bytes> {
    let mut encoder = Encoder::new(format, rate).unwrap();
    let mut pieces: Vec<Bytes> = pcm.chunks(chunk).map(|chunk| encoder.encode(chunk).unwrap()).collect();
    pieces.push(encoder.finish().unwrap());
    pieces
}

fn encode(format: OutputFormat, rate: u32, pcm: &[i16]) -> Bytes {
    pieces(format, rate, pcm, 777).concat().into()
}

/// Pearson's correlation at the lag where it is greatest, for lags of `from..to` samples.
fn correlation(original: &[i16], decoded: &[i16], lags: std::ops::Range<usize>) -> f64 {
    let at = |lag: usize| {
        let (mut product, mut left, mut right) = (0.0, 0.0, 0.0);
        for (a, b) in original.iter().zip(decoded.iter().skip(lag)) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            product += a * b;
            left += a * a;
            right += b * b;
        }
        product / (left * right).sqrt().max(1.0)
    };
    lags.map(at).fold(-1.0, f64::max)
}

#[test]
fn names_and_types_are_those_of_the_speech_api() {
    for (name, content_type) in [
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm"),
        ("flac", "audio/flac"),
        ("opus", "audio/opus"),
        ("mp3", "audio/mpeg"),
        ("aac", "audio/aac"),
    ] {
        let format = OutputFormat::parse(name).unwrap();
        assert_eq!((format.name(), format.content_type()), (name, content_type));
    }
    assert_eq!(OutputFormat::parse("midi"), None);
    assert!(matches!(Encoder::new(OutputFormat::Aac, 24_000), Err(Error::Elsewhere { .. })));
}

#[test]
fn lossless_formats_give_back_every_sample() {
    for rate in [8_000, 22_050, 24_000, 44_100] {
        let mut pcm = speech(rate, 0.7);
        pcm.extend([i16::MIN, i16::MAX, i16::MIN, 0, -1]);
        pcm.extend(signal::white_noise(1000, 32_767.0));
        for format in [OutputFormat::Wav, OutputFormat::Flac] {
            assert_eq!(decode(encode(format, rate, &pcm)), (pcm.clone(), rate), "{format:?}");
        }
        let raw = encode(OutputFormat::Pcm, rate, &pcm);
        assert_eq!(Samples::default().push(&raw), pcm);
    }
}

#[test]
fn flac_may_end_with_a_block_of_any_length() {
    let pcm = speech(24_000, 0.2);
    for len in (1..80).chain(2040..2060).chain([4095, 4096, 4097]) {
        let (decoded, _) = decode(encode(OutputFormat::Flac, 24_000, &pcm[..len]));
        assert_eq!(decoded, pcm[..len], "{len} samples");
    }
}

#[test]
fn opus_keeps_length_and_sound_at_every_rate() {
    for rate in [8_000, 12_000, 16_000, 24_000, 48_000] {
        for seconds in [0.013, 0.5, 1.977] {
            let pcm = speech(rate, seconds);
            let (decoded, decoded_rate) = decode(encode(OutputFormat::Opus, rate, &pcm));
            let step = (decoded_rate / rate) as usize;
            assert_eq!(decoded_rate, 48_000);
            assert_eq!(decoded.len(), pcm.len() * step, "{rate} Hz, {seconds} s");
            if seconds < 0.1 {
                continue;
            }
            let thinned: Vec<i16> = decoded.iter().copied().step_by(step).collect();
            let alike = correlation(&pcm, &thinned, 0..3);
            assert!(alike > 0.95, "{rate} Hz: {alike}");
        }
    }
}

#[cfg(feature = "mp3lame")]
#[test]
fn mp3_keeps_length_and_sound_at_every_rate() {
    for rate in [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
        let pcm = speech(rate, 1.1);
        let (decoded, decoded_rate) = decode(encode(OutputFormat::Mp3, rate, &pcm));
        assert_eq!(decoded_rate, rate);
        // The encoder's delay, the decoder's and padding to whole frames.
        assert!((pcm.len()..pcm.len() + 4 * 1152).contains(&decoded.len()), "{rate} Hz: {}", decoded.len());
        let alike = correlation(&pcm, &decoded, 500..1800);
        assert!(alike > 0.95, "{rate} Hz: {alike}");
    }
}

#[cfg(not(feature = "mp3lame"))]
#[test]
fn mp3_names_the_missing_feature() {
    let error = Encoder::new(OutputFormat::Mp3, 24_000).err().unwrap();
    assert_eq!(error.to_string(), "mp3 output is not built in (cargo feature `mp3lame`)");
}

#[test]
fn rates_a_format_lacks_are_refused() {
    for (format, rate) in [
        (OutputFormat::Opus, 22_050),
        (OutputFormat::Mp3, 96_000),
        (OutputFormat::Flac, 0),
        (OutputFormat::Wav, 0),
    ] {
        assert!(matches!(Encoder::new(format, rate), Err(Error::UnsupportedRate { .. })), "{format:?}");
    }
}

#[test]
fn the_first_piece_of_wav_is_header_and_samples() {
    let pieces = pieces(OutputFormat::Wav, 24_000, &[1, 2, 3, 4], 2);
    assert_eq!(pieces[0].len(), wav::HEADER_LEN + 4);
    assert_eq!(pieces[1].len(), 4);
    assert!(pieces[2].is_empty());
}

#[test]
fn audio_leaves_while_it_comes() {
    let rate = 24_000;
    let pcm = speech(rate, 2.0);
    // (format, samples in until the first byte is out, longest run of empty pieces), in pieces of 20 ms.
    for (format, first, gap) in [
        (OutputFormat::Wav, 1, 0),
        (OutputFormat::Pcm, 1, 0),
        (OutputFormat::Opus, 1, 4),
        (OutputFormat::Webm, 1, 0),
        (OutputFormat::Flac, 5, 4),
        #[cfg(feature = "mp3lame")]
        (OutputFormat::Mp3, 5, 1),
    ] {
        let mut pieces = pieces(format, rate, &pcm, rate as usize / 50);
        pieces.pop();
        let begin = pieces.iter().position(|piece| !piece.is_empty()).unwrap();
        assert!(begin < first, "{format:?} begins after {begin} pieces");
        let longest = pieces[begin..].split(|piece| !piece.is_empty()).map(<[_]>::len).max().unwrap();
        assert!(longest <= gap, "{format:?} pauses for {longest} pieces");
    }
}

#[test]
fn webm_keeps_length_and_sound() {
    for (rate, seconds) in [(24_000, 0.013), (24_000, 1.977), (16_000, 1.0), (48_000, 3.21)] {
        let pcm = speech(rate, seconds);
        let (decoded, decoded_rate) = decode(encode(OutputFormat::Webm, rate, &pcm));
        assert_eq!(decoded_rate, 48_000);
        let step = (decoded_rate / rate) as usize;
        // A demuxer may leave priming and padding in: what Opus adds to whole frames.
        let whole = pcm.len() * step;
        assert!(
            (whole..=whole + 2 * 960).contains(&decoded.len()),
            "{rate} Hz, {seconds} s: {}",
            decoded.len()
        );
        if seconds > 0.5 {
            let thinned: Vec<i16> = decoded.iter().copied().step_by(step).collect();
            let alike = correlation(&pcm, &thinned, 0..400);
            assert!(alike > 0.95, "{rate} Hz: {alike}");
        }
    }
}

#[test]
fn opus_pages_are_worth_their_header() {
    let pcm = speech(24_000, 10.0);
    let file = encode(OutputFormat::Opus, 24_000, &pcm);
    let pages = memchr::memmem::find_iter(&file, b"OggS").count();
    assert!((90..=105).contains(&pages), "{pages} pages in 10 s");
}

#[test]
fn a_stream_without_samples_is_a_valid_file() {
    for (format, container) in [
        (OutputFormat::Wav, Some(Container::Wav)),
        (OutputFormat::Flac, Some(Container::Flac)),
        (OutputFormat::Opus, Some(Container::OggOpus)),
        (OutputFormat::Webm, Some(Container::WebM)),
        (OutputFormat::Pcm, None),
    ] {
        let file = encode(format, 16_000, &[]);
        assert_eq!(Container::sniff(&file), container, "{format:?}");
        if format == OutputFormat::Opus {
            assert_eq!(decode(file).0.len(), 0);
        }
    }
}

#[test]
fn what_is_encoded_is_recognised_and_measured() {
    let pcm = speech(24_000, 3.21);
    for (format, container) in [
        (OutputFormat::Wav, Container::Wav),
        (OutputFormat::Opus, Container::OggOpus),
        #[cfg(feature = "mp3lame")]
        (OutputFormat::Mp3, Container::Mp3),
    ] {
        let file = encode(format, 24_000, &pcm);
        assert_eq!(Container::sniff(&file), Some(container));
        let whole = estimate(&file, Some(file.len() as u64)).unwrap();
        assert!(whole.exact);
        assert!((whole.seconds - 3.21).abs() < 0.1, "{format:?}: {whole:?}");
        let begin = estimate(&file[..file.len() / 3], Some(file.len() as u64)).unwrap();
        assert!((begin.seconds - 3.21).abs() < 0.5, "{format:?}: {begin:?}");
    }
}

#[cfg(feature = "mp3lame")]
#[test]
fn a_whole_mp3_states_its_length_and_is_the_same_sound() {
    for rate in [8_000, 16_000, 24_000, 44_100, 48_000] {
        let pcm = speech(rate, 3.21);
        let stream = encode(OutputFormat::Mp3, rate, &pcm);
        let whole = OutputFormat::Mp3.whole(stream.clone());
        let added = whole.len() - stream.len();
        assert!(added > 116 && whole.ends_with(&stream), "{rate} Hz: {added}");
        let tag = whole.windows(4).position(|four| four == b"Info").unwrap();
        let number = |at: usize| u32::from_be_bytes(whole[tag + at..tag + at + 4].try_into().unwrap());
        assert_eq!((number(4), number(12) as usize), (7, whole.len()));
        let places = &whole[tag + 16..tag + 116];
        assert!(places.is_sorted() && (places[0], places[50], places[99]) == (0, 128, 253), "{places:?}");
        // A constant rate shows the length in the end; the number of frames shows it at once.
        let at_once = estimate(&whole[..1000], None).unwrap();
        assert!(at_once.exact || (at_once.seconds - 3.21).abs() < 0.2, "{rate} Hz: {at_once:?}");
        let (alone, with) = (decode(stream).0, decode(whole).0);
        assert!(alone == with, "{rate} Hz: {} and {} samples", alone.len(), with.len());
    }
    assert_eq!(OutputFormat::Mp3.whole(Bytes::from_static(b"no frames")), "no frames");
}

#[test]
fn a_whole_wav_has_its_sizes() {
    let pcm = speech(24_000, 0.3);
    let whole = OutputFormat::Wav.whole(encode(OutputFormat::Wav, 24_000, &pcm));
    let header = wav::parse(&whole).unwrap();
    assert_eq!(header.data_len, Some(pcm.len() as u64 * 2));
    assert_eq!(u32::from_le_bytes(whole[4..8].try_into().unwrap()) as usize, whole.len() - 8);
    let opus = encode(OutputFormat::Opus, 24_000, &pcm);
    assert_eq!(OutputFormat::Opus.whole(opus.clone()), opus);
}

#[test]
fn flac_frames_are_numbered_for_seeking() {
    const HEADER: usize = 4 + 4 + 34;
    let frames = pieces(OutputFormat::Flac, 24_000, &speech(24_000, 0.5), 2048);
    for (number, frame) in frames.iter().filter(|piece| !piece.is_empty()).enumerate() {
        let frame = &frame[if number == 0 { HEADER } else { 0 }..];
        assert_eq!((&frame[..2], usize::from(frame[4])), (&[0xFF, 0xF8][..], number));
    }
}
