//! The audio containers that clients send: their names, file extensions and MIME types.

use std::borrow::Cow;

/// A container of audio: by its first bytes ([`Container::sniff`]) or, second best, by a file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// RIFF/WAVE, RF64 and BW64.
    Wav,
    /// Sony Wave64.
    Wave64,
    /// AIFF and AIFF-C.
    Aiff,
    /// Native FLAC.
    Flac,
    /// MPEG audio, layers I to III, with or without an ID3 tag.
    Mp3,
    /// AAC in ADTS frames.
    Adts,
    /// Opus in Ogg.
    OggOpus,
    /// Vorbis in Ogg.
    OggVorbis,
    /// FLAC in Ogg.
    OggFlac,
    /// Ogg with another codec, or one not named within the prefix.
    Ogg,
    /// MP4 and QuickTime.
    Mp4,
    /// MP4 that calls itself audio (brand `M4A`, `M4B`).
    M4a,
    /// MP4 for phones (brands `3gp*`, `3g2*`).
    ThreeGp,
    /// WebM.
    WebM,
    /// Matroska.
    Matroska,
    /// AMR, narrow or wide band.
    Amr,
    /// Core Audio Format.
    Caf,
    /// Advanced Systems Format: Windows Media.
    Asf,
}

/// One row of the table: file extensions, the first of which is the one to write, and the MIME type.
struct Row(Container, &'static [&'static str], &'static str);

const TABLE: [Row; 18] = [
    Row(Container::Wav, &["wav", "wave", "rf64", "bwf"], "audio/wav"),
    Row(Container::Wave64, &["w64"], "audio/x-w64"),
    Row(Container::Aiff, &["aiff", "aif", "aifc"], "audio/aiff"),
    Row(Container::Flac, &["flac"], "audio/flac"),
    Row(Container::Mp3, &["mp3", "mpga", "mpeg", "mp2"], "audio/mpeg"),
    Row(Container::Adts, &["aac", "adts"], "audio/aac"),
    Row(Container::OggOpus, &["opus"], "audio/ogg"),
    Row(Container::OggVorbis, &["ogg"], "audio/ogg"),
    Row(Container::OggFlac, &["oga"], "audio/ogg"),
    Row(Container::Ogg, &["ogg", "oga", "ogx"], "audio/ogg"),
    Row(Container::Mp4, &["mp4", "mov", "qt"], "audio/mp4"),
    Row(Container::M4a, &["m4a", "m4b"], "audio/x-m4a"),
    Row(Container::ThreeGp, &["3gp", "3g2", "3gpp"], "audio/3gpp"),
    Row(Container::WebM, &["webm", "weba"], "audio/webm"),
    Row(Container::Matroska, &["mka", "mkv"], "audio/x-matroska"),
    Row(Container::Amr, &["amr", "awb"], "audio/amr"),
    Row(Container::Caf, &["caf"], "audio/x-caf"),
    Row(Container::Asf, &["wma", "asf", "wmv"], "audio/x-ms-wma"),
];

impl Container {
    /// The usual file extension, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.row().1[0]
    }

    /// The MIME type to declare, without parameters.
    #[must_use]
    pub fn mime(self) -> &'static str {
        self.row().2
    }

    /// The container that a file name's extension suggests.
    #[must_use]
    pub fn from_filename(filename: &str) -> Option<Self> {
        let (_, extension) = filename.rsplit_once('.')?;
        // Last match, so that the bare `ogg` names the container and not one codec in it.
        TABLE.iter().rfind(|row| row.has(extension)).map(|row| row.0)
    }

    /// A name for a file of this container: the client's, with this container's extension unless its own belongs to the
    /// container too (`mp4`, `m4a` and `mov` are one family, as are `ogg`, `oga` and `opus`). Directories, control characters
    /// and quotes are removed, and the stem is cut to 120 bytes.
    #[must_use]
    pub fn filename(self, client_name: Option<&str>) -> String {
        const MAX_STEM_BYTES: usize = 120;
        let name = client_name.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
        let unfit = |c: char| c.is_control() || matches!(c, '"' | '\'' | '`');
        let name =
            if name.contains(unfit) { Cow::Owned(name.replace(unfit, "")) } else { Cow::Borrowed(name) };
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if TABLE.iter().any(|row| row.has(extension)) => (stem, extension),
            _ => (&name[..], ""),
        };
        let belongs = TABLE.iter().any(|row| row.0.family() == self.family() && row.has(extension));
        let extension = if belongs { extension } else { self.extension() };
        let stem = &stem[..stem.floor_char_boundary(MAX_STEM_BYTES)];
        let stem = stem.trim_matches(|c: char| c == '.' || c.is_whitespace());
        [if stem.is_empty() { "audio" } else { stem }, ".", extension].concat()
    }

    /// One of the containers that share their file extensions.
    fn family(self) -> Self {
        match self {
            Self::OggOpus | Self::OggVorbis | Self::OggFlac | Self::Ogg => Self::Ogg,
            Self::Mp4 | Self::M4a | Self::ThreeGp => Self::Mp4,
            other => other,
        }
    }

    /// Bytes of one second, when nothing but the container is known: speech as phones, browsers and encoders write it.
    pub(super) fn typical_bytes_per_second(self) -> f64 {
        match self {
            Self::Wav | Self::Wave64 | Self::Aiff => 32_000.0,
            // MP4 is a film as often as not.
            Self::Flac | Self::OggFlac | Self::Mp4 => 16_000.0,
            Self::Mp3 | Self::Adts | Self::M4a | Self::Caf | Self::Asf => 8_000.0,
            Self::OggOpus | Self::OggVorbis | Self::Ogg | Self::WebM | Self::Matroska | Self::ThreeGp => {
                4_000.0
            }
            Self::Amr => 1_600.0,
        }
    }

    /// The least bytes that a second takes: no plausible codec in this container, nor silence in it, is smaller.
    pub(super) fn least_bytes_per_second(self) -> f64 {
        match self {
            // G.729 and MP3 of 8 kbit/s are the smallest codecs in these.
            Self::Wav | Self::Wave64 | Self::Aiff | Self::Mp3 => 1_000.0,
            Self::Amr => 250.0,
            Self::Adts | Self::Mp4 | Self::M4a | Self::ThreeGp | Self::Caf | Self::Asf => 200.0,
            // Opus with discontinuous transmission.
            Self::Ogg | Self::OggOpus | Self::OggVorbis | Self::WebM | Self::Matroska => 100.0,
            // Silence is 14 bytes for 4096 samples.
            Self::Flac | Self::OggFlac => 50.0,
        }
    }

    fn row(self) -> &'static Row {
        // The table is in the order of the enum; a test holds it to that.
        &TABLE[self as usize]
    }
}

impl Row {
    fn has(&self, extension: &str) -> bool {
        self.1.iter().any(|known| extension.eq_ignore_ascii_case(known))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert!(row.0.least_bytes_per_second() < row.0.typical_bytes_per_second());
        }
    }

    #[test]
    fn every_extension_of_the_transcription_api_is_known() {
        for extension in ["flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"] {
            assert!(Container::from_filename(&format!("speech.{extension}")).is_some(), "{extension}");
        }
        assert_eq!(Container::from_filename("A.OGG"), Some(Container::Ogg));
        assert_eq!(Container::from_filename("voice.message.Opus"), Some(Container::OggOpus));
        assert_eq!(Container::from_filename("blob"), None);
    }

    #[test]
    fn names_agree_with_the_container() {
        for (container, given, name) in [
            (Container::Mp4, Some("recording.webm"), "recording.mp4"),
            (Container::Mp4, Some("voice memo.M4A"), "voice memo.M4A"),
            (Container::M4a, Some("clip.mov"), "clip.mov"),
            (Container::OggOpus, Some("a.ogg"), "a.ogg"),
            (Container::Ogg, Some("a.mp3"), "a.ogg"),
            (Container::Mp3, Some("a.mpga"), "a.mpga"),
            (Container::Wav, Some("a.WAVE"), "a.WAVE"),
            (Container::Wav, Some("talk.v2"), "talk.v2.wav"),
            (Container::WebM, Some("blob"), "blob.webm"),
            (Container::WebM, None, "audio.webm"),
            (Container::Flac, Some(""), "audio.flac"),
            (Container::Flac, Some(".flac"), "audio.flac"),
            (Container::Flac, Some("../.."), "audio.flac"),
            (Container::Flac, Some("/etc/../passwd"), "passwd.flac"),
            (Container::Flac, Some("C:\\music\\Grüße \"1\".mp3"), "Grüße 1.flac"),
            (Container::Flac, Some("a\r\nb\0.flac"), "ab.flac"),
        ] {
            assert_eq!(container.filename(given), name, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn names_are_safe_and_short(name in "\\PC{0,200}|[\\x00-\\x7F]{0,40}|[ä€𝄞.]{0,200}", row in 0..TABLE.len()) {
            let container = TABLE[row].0;
            let name = container.filename(Some(&name));
            prop_assert!(name.len() <= 126 && !name.starts_with('.'), "{name}");
            prop_assert!(!name.contains(|c: char| c.is_control() || "\"'`/\\".contains(c)), "{name}");
            prop_assert_eq!(Container::from_filename(&name).map(Container::family), Some(container.family()));
        }
    }
}
