//! Tells a container by its first bytes: a client's file name and MIME type are often wrong.

use memchr::memmem;

use super::format::Container;
use super::mpeg::{self, Frame};

impl Container {
    /// Recognises the container that `prefix` begins. A few hundred bytes are enough unless a large ID3 tag leads.
    #[must_use]
    pub fn sniff(prefix: &[u8]) -> Option<Self> {
        match prefix {
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..]
            | [b'R', b'F', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..]
            | [b'B', b'W', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Self::Wav),
            [b'r', b'i', b'f', b'f', 0x2E, 0x91, 0xCF, 0x11, ..] => Some(Self::Wave64),
            [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(Self::Aiff),
            [b'f', b'L', b'a', b'C', ..] => Some(Self::Flac),
            [b'O', b'g', b'g', b'S', 0, rest @ ..] => Some(ogg(rest)),
            [0x1A, 0x45, 0xDF, 0xA3, rest @ ..] => Some(ebml(rest)),
            [b'#', b'!', b'A', b'M', b'R', b'\n' | b'-', ..] => Some(Self::Amr),
            [b'c', b'a', b'f', b'f', 0, 1, ..] => Some(Self::Caf),
            [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => Some(mp4(brand)),
            // QuickTime of old, and what is left of MP4 streams without their first box.
            [_, _, _, _, b'm', b'o', b'o', b'v' | b'f', ..] | [_, _, _, _, b's', b't', b'y', b'p', ..] => {
                Some(Self::Mp4)
            }
            [b'I', b'D', b'3', ..] => Some(tagged(prefix)),
            [0xFF, ..] => frames(prefix),
            _ => None,
        }
    }
}

/// The codec is named in the first packet of the first page, right behind the page header.
fn ogg(after_magic: &[u8]) -> Container {
    let first = &after_magic[..after_magic.len().min(64)];
    let has = |magic: &[u8]| memmem::find(first, magic).is_some();
    if has(b"OpusHead") {
        Container::OggOpus
    } else if has(b"\x01vorbis") {
        Container::OggVorbis
    } else if has(b"\x7FFLAC") {
        Container::OggFlac
    } else {
        Container::Ogg
    }
}

fn ebml(header: &[u8]) -> Container {
    let header = &header[..header.len().min(64)];
    if memmem::find(header, b"matroska").is_some() { Container::Matroska } else { Container::WebM }
}

fn mp4(brand: &[u8]) -> Container {
    match brand {
        [b'M', b'4', b'A' | b'B', ..] => Container::M4a,
        [b'3', b'g', b'p' | b'2' | b'r' | b's' | b'e', ..] => Container::ThreeGp,
        _ => Container::Mp4,
    }
}

/// ID3 leads MP3 almost always, and sometimes AAC or FLAC.
fn tagged(prefix: &[u8]) -> Container {
    match prefix.get(mpeg::id3_len(prefix)..) {
        Some([b'f', b'L', b'a', b'C', ..]) => Container::Flac,
        Some(rest) if Frame::adts(rest).is_some() => Container::Adts,
        _ => Container::Mp3,
    }
}

fn frames(prefix: &[u8]) -> Option<Container> {
    for (container, read) in [(Container::Adts, Frame::adts as fn(&[u8]) -> _), (Container::Mp3, Frame::mpeg)]
    {
        if mpeg::walk(prefix, 0, read).is_some_and(|walk| walk.start == 0) {
            return Some(container);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn containers_are_told_by_their_magic() {
        let opus = b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01";
        let vorbis = b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x1e\x01vorbis";
        let cases: [(&[u8], Option<Container>); 22] = [
            (b"RIFF\x24\0\0\0WAVEfmt ", Some(Container::Wav)),
            (b"RF64\xff\xff\xff\xffWAVEds64", Some(Container::Wav)),
            (b"BW64\xff\xff\xff\xffWAVEds64", Some(Container::Wav)),
            (b"RIFF\x24\0\0\0AVI LIST", None),
            (b"FORM\0\0\0\0AIFCFVER", Some(Container::Aiff)),
            (b"fLaC\0\0\0\x22", Some(Container::Flac)),
            (opus, Some(Container::OggOpus)),
            (vorbis, Some(Container::OggVorbis)),
            (b"OggS\0", Some(Container::Ogg)),
            (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webm", Some(Container::WebM)),
            (b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroska", Some(Container::Matroska)),
            (b"#!AMR\n\x3c", Some(Container::Amr)),
            (b"#!AMR-WB\n", Some(Container::Amr)),
            (b"caff\0\x01\0\0desc", Some(Container::Caf)),
            (b"\0\0\0\x20ftypM4A \0\0\0\0", Some(Container::M4a)),
            (b"\0\0\0\x20ftypisom\0\0\0\0", Some(Container::Mp4)),
            (b"\0\0\0\x20ftyp3gp4\0\0\0\0", Some(Container::ThreeGp)),
            (b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x00", Some(Container::Mp3)),
            (b"ID3\x04\0\0\0\0\0\x01\0fLaC", Some(Container::Flac)),
            (b"\xff\xfb\x90\x00\0\0\0\0", Some(Container::Mp3)),
            (b"\xff\xf1\x58\x40\x0c\x9f\xfc\0", Some(Container::Adts)),
            (b"{\"text\":\"\"}", None),
        ];
        for (prefix, expected) in cases {
            assert_eq!(Container::sniff(prefix), expected, "{}", prefix.escape_ascii());
        }
    }

    #[test]
    fn a_lone_sync_word_in_noise_is_not_audio() {
        let mut noise = vec![0x55; 2000];
        noise[..4].copy_from_slice(&[0xFF, 0xFB, 0x90, 0x00]);
        assert_eq!(Container::sniff(&noise), None);
        noise[417..421].copy_from_slice(&[0xFF, 0xFB, 0x90, 0x00]);
        assert_eq!(Container::sniff(&noise), Some(Container::Mp3));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(prefix in prop::collection::vec(any::<u8>(), 0..200), magic in 0usize..5) {
            let magic: &[u8] = [&b""[..], b"ID3", b"OggS\0", b"\xff\xfb\x90", b"\x1aE\xdf\xa3"][magic];
            let _ = Container::sniff(&[magic, &prefix].concat());
        }
    }
}
