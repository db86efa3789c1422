//! Tells a container by its first bytes: a client's file name and MIME type are often wrong.

use memchr::memmem;

use super::boxes;
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
            [0x30, 0x26, 0xB2, 0x75, 0x8E, 0x66, 0xCF, 0x11, ..] => Some(Self::Asf),
            [b'I', b'D', b'3', ..] => Some(tagged(prefix)),
            [0xFF, ..] => frames(prefix),
            _ => mp4(prefix),
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

/// MP4 and QuickTime. Old QuickTime files, and streams that lost their first box, begin with another box than `ftyp`.
fn mp4(prefix: &[u8]) -> Option<Container> {
    let first = boxes::Header::parse(prefix)?;
    // Longer ones would be plain text as likely.
    const MAX_PADDING: u64 = 1 << 24;
    let plausible = match (&first.kind, first.size) {
        (b"mdat", None) => true,
        (b"ftyp" | b"styp" | b"moov" | b"moof" | b"mdat", Some(size)) => size < 1 << 48,
        (b"free" | b"skip" | b"pnot", Some(size)) => size <= MAX_PADDING,
        (b"wide", Some(size)) => size == 8,
        _ => false,
    };
    if !plausible || !is_followed(prefix, first) {
        return None;
    }
    Some(match (&first.kind, &prefix[8..]) {
        (b"ftyp", [b'M', b'4', b'A' | b'B', ..]) => Container::M4a,
        (b"ftyp", [b'3', b'g', b'p' | b'2' | b'r' | b's' | b'e', ..]) => Container::ThreeGp,
        _ => Container::Mp4,
    })
}

/// Whether the box behind the first one is one that stands at the top of a file, if it is within the prefix.
fn is_followed(prefix: &[u8], first: boxes::Header) -> bool {
    const TOP: [&[u8; 4]; 14] = [
        b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"meta",
        b"sidx", b"PICT", b"udta",
    ];
    let next = first.size.and_then(|size| usize::try_from(size).ok()).and_then(|size| prefix.get(size..));
    match next {
        Some(next) if next.len() >= 16 => {
            boxes::Header::parse(next).is_some_and(|next| TOP.contains(&&next.kind))
        }
        _ => true,
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
    fn containers_are_recognised_by_their_magic() {
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

    /// A box of `size` bytes with an empty body, of which at most 64 bytes are made.
    fn boxed(size: u32, kind: &[u8; 4]) -> Vec<u8> {
        let mut made = [&size.to_be_bytes()[..], kind].concat();
        made.resize(size.clamp(8, 64) as usize, 0);
        made
    }

    #[test]
    fn quicktime_is_recognised_by_any_first_box() {
        let movie = boxed(600, b"moov");
        let long = [&b"\0\0\0\x01mdat\0\0\0\x02\0\0\0\0"[..], &[0; 40]].concat();
        for file in [
            [boxed(8, b"wide"), boxed(9_000_000, b"mdat")].concat(),
            [boxed(8, b"wide"), long.clone()].concat(),
            [boxed(20, b"free"), boxed(9_000_000, b"mdat")].concat(),
            [boxed(60, b"skip"), movie.clone()].concat(),
            [boxed(20, b"pnot"), movie.clone()].concat(),
            [boxed(64, b"mdat"), movie.clone()].concat(),
            boxed(0, b"mdat"),
            boxed(3_000_000_000, b"mdat"),
            long,
            movie,
            boxed(600, b"moof"),
            [boxed(24, b"ftyp"), boxed(8, b"wide")].concat(),
        ] {
            assert_eq!(Container::sniff(&file), Some(Container::Mp4), "{}", file.escape_ascii());
        }
    }

    #[test]
    fn text_and_impossible_sizes_are_not_quicktime() {
        for file in [
            b"Be freely available to everyone who asks".to_vec(),
            b"I'm skipping this one".to_vec(),
            b"100 free samples".to_vec(),
            boxed(7, b"mdat"),
            boxed(0, b"free"),
            boxed(9, b"wide"),
            [&b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x0f"[..], &[0; 40]].concat(),
            [&b"\0\0\0\x01mdat\x7f\0\0\0\0\0\0\0"[..], &[0; 40]].concat(),
            [boxed(16, b"free"), vec![b'x'; 40]].concat(),
        ] {
            assert_eq!(Container::sniff(&file), None, "{}", file.escape_ascii());
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
