//! The audio containers that clients send: their names, file extensions and MIME types.

/// A container of audio, told by its first bytes ([`Container::sniff`]) or, second best, by its name.
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
}

/// One row of the table: name, file extensions, MIME types; the first of each is the one to write.
type Row = (Container, &'static str, &'static [&'static str], &'static [&'static str]);

const TABLE: [Row; 17] = [
    (
        Container::Wav,
        "wav",
        &["wav", "wave", "rf64", "bwf"],
        &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"],
    ),
    (Container::Wave64, "wave64", &["w64"], &["audio/x-w64"]),
    (Container::Aiff, "aiff", &["aiff", "aif", "aifc"], &["audio/aiff", "audio/x-aiff"]),
    (Container::Flac, "flac", &["flac"], &["audio/flac", "audio/x-flac"]),
    (
        Container::Mp3,
        "mp3",
        &["mp3", "mpga", "mpeg", "mp2"],
        &["audio/mpeg", "audio/mp3", "audio/mpga", "video/mpeg"],
    ),
    (Container::Adts, "aac", &["aac", "adts"], &["audio/aac", "audio/aacp", "audio/x-aac"]),
    (Container::OggOpus, "ogg/opus", &["opus"], &["audio/opus", "audio/ogg; codecs=opus"]),
    (Container::OggVorbis, "ogg/vorbis", &["ogg"], &["audio/vorbis", "audio/ogg; codecs=vorbis"]),
    (Container::OggFlac, "ogg/flac", &["oga"], &["audio/ogg; codecs=flac"]),
    (Container::Ogg, "ogg", &["ogg", "oga", "ogx"], &["audio/ogg", "application/ogg", "video/ogg"]),
    (Container::Mp4, "mp4", &["mp4", "mov"], &["audio/mp4", "video/mp4", "video/quicktime"]),
    (Container::M4a, "m4a", &["m4a", "m4b"], &["audio/x-m4a", "audio/m4a"]),
    (Container::ThreeGp, "3gp", &["3gp", "3g2", "3gpp"], &["audio/3gpp", "video/3gpp", "audio/3gpp2"]),
    (Container::WebM, "webm", &["webm", "weba"], &["audio/webm", "video/webm"]),
    (Container::Matroska, "matroska", &["mka", "mkv"], &["audio/x-matroska", "video/x-matroska"]),
    (Container::Amr, "amr", &["amr", "awb"], &["audio/amr", "audio/amr-wb"]),
    (Container::Caf, "caf", &["caf"], &["audio/x-caf"]),
];

impl Container {
    /// File extensions that OpenAI's transcription API accepts. We accept more.
    pub const OPENAI_EXTENSIONS: [&'static str; 9] =
        ["flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"];

    /// A short name for logs and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The usual file extension, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.row().2[0]
    }

    /// The MIME type to declare, with a codec parameter only where the bare type says less.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::OggOpus | Self::OggVorbis | Self::OggFlac => Self::Ogg.mime(),
            _ => self.row().3[0],
        }
    }

    /// The container that a file name's extension suggests.
    #[must_use]
    pub fn from_filename(filename: &str) -> Option<Self> {
        let (_, extension) = filename.rsplit_once('.')?;
        // Last match, so that the bare `ogg` names the container and not one codec in it.
        let row =
            TABLE.iter().rfind(|row| row.2.iter().any(|known| extension.eq_ignore_ascii_case(known)))?;
        Some(row.0)
    }

    /// The container that a Content-Type suggests; parameters other than a sole `codecs` are ignored.
    #[must_use]
    pub fn from_mime(mime: &str) -> Option<Self> {
        let find = |wanted: &str| {
            TABLE.iter().find(|row| row.3.iter().any(|known| wanted.eq_ignore_ascii_case(known)))
        };
        let bare = mime.split(';').next().unwrap_or(mime).trim();
        find(mime.trim()).or_else(|| find(bare)).map(|row| row.0)
    }

    /// Bytes of one second, when nothing but the container is known: speech as phones, browsers and encoders write it.
    pub(super) fn typical_bytes_per_second(self) -> f64 {
        match self {
            Self::Wav | Self::Wave64 | Self::Aiff => 32_000.0,
            // MP4 is a film as often as not.
            Self::Flac | Self::OggFlac | Self::Mp4 => 16_000.0,
            Self::Mp3 | Self::Adts | Self::M4a | Self::Caf => 8_000.0,
            Self::OggOpus | Self::OggVorbis | Self::Ogg | Self::WebM | Self::Matroska | Self::ThreeGp => {
                4_000.0
            }
            Self::Amr => 1_600.0,
        }
    }

    fn row(self) -> &'static Row {
        // The table is in the order of the enum; a test holds it to that.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert!(!row.1.is_empty() && !row.2.is_empty() && !row.3.is_empty());
        }
    }

    #[test]
    fn every_openai_extension_is_known() {
        for extension in Container::OPENAI_EXTENSIONS {
            assert!(Container::from_filename(&format!("speech.{extension}")).is_some(), "{extension}");
        }
        assert_eq!(Container::from_filename("A.OGG"), Some(Container::Ogg));
        assert_eq!(Container::from_filename("voice.message.Opus"), Some(Container::OggOpus));
        assert_eq!(Container::from_filename("blob"), None);
    }

    #[test]
    fn mime_types_are_read_with_parameters() {
        assert_eq!(Container::from_mime("audio/webm;codecs=opus"), Some(Container::WebM));
        assert_eq!(Container::from_mime("Audio/Ogg; codecs=opus"), Some(Container::OggOpus));
        assert_eq!(Container::from_mime("audio/ogg"), Some(Container::Ogg));
        assert_eq!(Container::from_mime("application/octet-stream"), None);
        assert_eq!(Container::OggOpus.mime(), "audio/ogg");
        for row in TABLE {
            assert!(Container::from_mime(row.0.mime()).is_some());
        }
    }
}
