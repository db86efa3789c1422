//! Tells what a file's first bytes say of its coding: enough to decide whether an engine takes it as it is.

use super::aiff::Common;
use super::boxes::{self, be_u16, be_u32, be_u64};
use super::ebml::{CLUSTER, Element, SEGMENT};
use super::format::Container;
use super::mpeg::{self, Frame};
use super::wav;

/// How the audio of a file is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Integer samples of so many bits.
    Pcm(u16),
    /// Floating-point samples of so many bits.
    Float(u16),
    /// G.711 A-law.
    ALaw,
    /// G.711 µ-law.
    MuLaw,
    /// FLAC.
    Flac,
    /// MPEG audio, layers I to III.
    Mp3,
    /// AAC of any profile.
    Aac,
    /// Apple Lossless.
    Alac,
    /// Opus.
    Opus,
    /// Vorbis.
    Vorbis,
    /// AMR, narrow or wide band.
    Amr,
}

/// What the first bytes of a file say. What they leave open is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The container.
    pub container: Container,
    /// The codec of the first audio track; `None` also for codecs not listed.
    pub codec: Option<Codec>,
    /// Number of channels.
    pub channels: Option<u16>,
    /// Sample rate in Hz. 48,000 for Opus, whatever was encoded.
    pub rate: Option<u32>,
}

/// Codec, channels and sample rate.
type Coding = (Option<Codec>, Option<u16>, Option<u32>);

/// Describes the file that begins with `prefix`; 64 KiB are enough for most files. `None` if the container is unknown.
#[must_use]
pub fn describe(prefix: &[u8]) -> Option<Description> {
    let container = Container::sniff(prefix)?;
    let coding = match container {
        Container::Wav => from_wav(prefix),
        Container::Aiff => aiff(prefix),
        Container::Flac => untagged(prefix).and_then(flac),
        Container::Mp3 => frame(prefix, Codec::Mp3, Frame::mpeg),
        Container::Adts => frame(prefix, Codec::Aac, Frame::adts),
        Container::OggOpus | Container::OggVorbis | Container::OggFlac => ogg(prefix),
        Container::Mp4 | Container::M4a | Container::ThreeGp => mp4(prefix),
        Container::WebM | Container::Matroska => matroska(prefix),
        Container::Amr => {
            let wide = prefix.starts_with(b"#!AMR-WB");
            Some((Some(Codec::Amr), Some(1), Some(if wide { 16_000 } else { 8_000 })))
        }
        Container::Caf => caf(prefix),
        Container::Wave64 | Container::Ogg | Container::Asf => None,
    };
    let (codec, channels, rate) = coding.unwrap_or_default();
    let (channels, rate) = (channels.filter(|count| *count > 0), rate.filter(|rate| *rate > 0));
    Some(Description { container, codec, channels, rate })
}

fn from_wav(prefix: &[u8]) -> Option<Coding> {
    let wav = wav::parse(prefix)?;
    let codec = match wav.coding {
        wav::Coding::Pcm => Some(Codec::Pcm(wav.bits)),
        wav::Coding::Float => Some(Codec::Float(wav.bits)),
        wav::Coding::ALaw => Some(Codec::ALaw),
        wav::Coding::MuLaw => Some(Codec::MuLaw),
        wav::Coding::Other(0x50 | 0x55) => Some(Codec::Mp3),
        wav::Coding::Other(_) => None,
    };
    Some((codec, Some(wav.channels), Some(wav.rate)))
}

fn aiff(prefix: &[u8]) -> Option<Coding> {
    let common = Common::find(prefix)?;
    let codec = match common.compression {
        None | Some(b"NONE" | b"sowt" | b"twos") => Some(Codec::Pcm(common.bits)),
        Some(b"fl32" | b"FL32") => Some(Codec::Float(32)),
        Some(b"fl64" | b"FL64") => Some(Codec::Float(64)),
        Some(b"ulaw" | b"ULAW") => Some(Codec::MuLaw),
        Some(b"alaw" | b"ALAW") => Some(Codec::ALaw),
        Some(_) => None,
    };
    Some((codec, Some(common.channels), Some(common.rate as u32)))
}

/// The bytes behind an ID3 tag.
fn untagged(prefix: &[u8]) -> Option<&[u8]> {
    prefix.get(mpeg::id3_len(prefix)..)
}

/// STREAMINFO, which comes first (RFC 9639, section 8.2).
fn flac(file: &[u8]) -> Option<Coding> {
    let packed = be_u64(file, 18)?;
    Some((Some(Codec::Flac), Some((packed >> 41 & 7) as u16 + 1), Some((packed >> 44) as u32)))
}

fn frame(prefix: &[u8], codec: Codec, read: fn(&[u8]) -> Option<Frame>) -> Option<Coding> {
    let first = mpeg::walk(prefix, mpeg::id3_len(prefix), read)?.first;
    Some((Some(codec), Some(first.channels), Some(first.rate)))
}

/// The identification header, alone on the first page.
fn ogg(prefix: &[u8]) -> Option<Coding> {
    let page = prefix.get(27 + usize::from(*prefix.get(26)?)..)?;
    if let Some(head) = page.strip_prefix(b"OpusHead") {
        return Some((Some(Codec::Opus), Some(u16::from(*head.get(1)?)), Some(48_000)));
    }
    if let Some(head) = page.strip_prefix(b"\x01vorbis") {
        let rate = u32::from_le_bytes(*head.get(5..)?.first_chunk()?);
        return Some((Some(Codec::Vorbis), Some(u16::from(*head.get(4)?)), Some(rate)));
    }
    flac(page.strip_prefix(b"\x7FFLAC")?.get(4..)?)
}

/// The sample description of the first sound track, if the movie box stands at the front.
fn mp4(prefix: &[u8]) -> Option<Coding> {
    let movie = boxes::children(prefix, b"moov").next()?;
    let table = boxes::descend(boxes::sound_track(movie)?, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    let entry = table.get(8..)?;
    let codec = match entry.get(4..8)? {
        b"mp4a" => Some(Codec::Aac),
        b".mp3" => Some(Codec::Mp3),
        b"alac" => Some(Codec::Alac),
        b"Opus" => Some(Codec::Opus),
        b"fLaC" => Some(Codec::Flac),
        b"samr" | b"sawb" => Some(Codec::Amr),
        b"ulaw" => Some(Codec::MuLaw),
        b"alaw" => Some(Codec::ALaw),
        b"sowt" | b"twos" => Some(Codec::Pcm(16)),
        _ => None,
    };
    Some((codec, be_u16(entry, 24), be_u16(entry, 32).map(u32::from)))
}

/// The first audio track.
fn matroska(prefix: &[u8]) -> Option<Coding> {
    const TRACKS: u32 = 0x1654_AE6B;
    const TRACK_ENTRY: u32 = 0xAE;
    const TRACK_TYPE: u32 = 0x83;
    const CODEC_ID: u32 = 0x86;
    const AUDIO: u32 = 0xE1;
    const CHANNELS: u32 = 0x9F;
    const SAMPLING_FREQUENCY: u32 = 0xB5;
    const TYPE_AUDIO: u64 = 2;
    let (mut sound, mut found, mut at) = (false, (None, None, None), 0);
    while let Some(element) = Element::parse(prefix, at) {
        at = match element.id {
            SEGMENT | TRACKS | TRACK_ENTRY | AUDIO => element.body,
            _ => element.end,
        };
        match element.id {
            TRACK_ENTRY | CLUSTER if sound => break,
            TRACK_ENTRY => found = (None, None, None),
            TRACK_TYPE => sound = element.integer(prefix) == Some(TYPE_AUDIO),
            CODEC_ID => {
                found.0 = match element.bytes(prefix)? {
                    b"A_OPUS" => Some(Codec::Opus),
                    b"A_VORBIS" => Some(Codec::Vorbis),
                    b"A_FLAC" => Some(Codec::Flac),
                    b"A_MPEG/L3" | b"A_MPEG/L2" => Some(Codec::Mp3),
                    id if id.starts_with(b"A_AAC") => Some(Codec::Aac),
                    _ => None,
                };
            }
            CHANNELS => found.1 = element.integer(prefix).and_then(|count| u16::try_from(count).ok()),
            SAMPLING_FREQUENCY => found.2 = element.float(prefix).map(|rate| rate as u32),
            _ => {}
        }
    }
    sound.then_some(found)
}

/// The description chunk comes first.
fn caf(prefix: &[u8]) -> Option<Coding> {
    let (channels, bits) = (be_u32(prefix, 44)?, be_u32(prefix, 48)? as u16);
    let codec = match prefix.get(28..32)? {
        b"lpcm" if be_u32(prefix, 32)? & 1 == 1 => Some(Codec::Float(bits)),
        b"lpcm" => Some(Codec::Pcm(bits)),
        b"aac " => Some(Codec::Aac),
        b"alac" => Some(Codec::Alac),
        b"ulaw" => Some(Codec::MuLaw),
        b"alaw" => Some(Codec::ALaw),
        b"opus" => Some(Codec::Opus),
        _ => None,
    };
    Some((codec, u16::try_from(channels).ok(), Some(f64::from_bits(be_u64(prefix, 20)?) as u32)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn codec_channels_and_rate_are_read() {
        for (name, container, codec, channels, rate) in [
            ("opus.webm", Container::WebM, Codec::Opus, 1, 48_000),
            ("live.webm", Container::WebM, Codec::Opus, 1, 48_000),
            ("vorbis.webm", Container::WebM, Codec::Vorbis, 2, 48_000),
            ("vorbis.ogg", Container::OggVorbis, Codec::Vorbis, 2, 48_000),
            ("opus-stereo.ogg", Container::OggOpus, Codec::Opus, 2, 48_000),
            ("flac.oga", Container::OggFlac, Codec::Flac, 1, 16_000),
            ("fragmented.mp4", Container::Mp4, Codec::Aac, 2, 44_100),
            ("aac.aac", Container::Adts, Codec::Aac, 1, 24_000),
            ("pcm.aiff", Container::Aiff, Codec::Pcm(16), 1, 8_000),
            ("ulaw.aifc", Container::Aiff, Codec::MuLaw, 1, 8_000),
            ("pcm.caf", Container::Caf, Codec::Pcm(16), 1, 8_000),
            ("lame.mp3", Container::Mp3, Codec::Mp3, 1, 44_100),
        ] {
            let file = fixture(name);
            let expected =
                Description { container, codec: Some(codec), channels: Some(channels), rate: Some(rate) };
            assert_eq!(describe(&file[..file.len().min(4096)]), Some(expected), "{name}");
        }
        // The whole file shows a movie box at its end too; a prefix does not.
        let file = fixture("aac.m4a");
        let described = describe(&file).unwrap();
        assert_eq!((described.codec, described.channels), (Some(Codec::Aac), Some(1)));
        let described = describe(&file[..2000]).unwrap();
        assert_eq!((described.container, described.codec), (Container::M4a, None));
    }

    #[test]
    fn wav_and_flac_are_described() {
        let described = describe(&wav::header(44_100, 2, None)).unwrap();
        assert_eq!(
            (described.codec, described.channels, described.rate),
            (Some(Codec::Pcm(16)), Some(2), Some(44_100))
        );
        let packed = (24_000_u64 << 44) | (1 << 41) | (15 << 36);
        let file = [&b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0"[..], &packed.to_be_bytes(), &[0; 16]].concat();
        let described = describe(&file).unwrap();
        assert_eq!(
            (described.codec, described.channels, described.rate),
            (Some(Codec::Flac), Some(2), Some(24_000))
        );
        assert_eq!(describe(b"hello"), None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            name in prop::sample::select(vec!["opus.webm", "vorbis.ogg", "aac.m4a", "fragmented.mp4", "pcm.caf", "pcm.aiff"]),
            changes in prop::collection::vec((0..2000usize, any::<u8>()), 0..12),
            cut in 0..10_000usize,
        ) {
            let mut file = fixture(name);
            for (at, byte) in changes {
                file[at] = byte;
            }
            file.truncate(cut);
            let _ = describe(&file);
        }
    }
}
