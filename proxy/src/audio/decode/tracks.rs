//! Takes containers apart with symphonia and decodes the packets of their first audio track.

use std::io::{Read, Seek};
use std::sync::LazyLock;

use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::default::formats::IsoMp4Reader;

use super::movie::{self, Edit, Movie};
use super::source::{Source, Watch};
use super::{Block, aac, opus};
use crate::audio::boxes::be_u32;
use crate::audio::convert::Error;
use crate::audio::format::Container;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs
});

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(opus::Decoder),
}

/// A container whose first audio track is decoded.
pub(in crate::audio) struct Reader {
    format: Box<dyn FormatReader>,
    watch: Watch,
    track: u32,
    codec: Codec,
    edit: Option<Edit>,
    /// Frames to drop and then frames to keep, at the rate of the first block.
    window: Option<(u64, u64)>,
    decoded: bool,
    /// Packets that could not be decoded.
    broken: bool,
}

impl Reader {
    pub(super) fn open<R>(mut source: Source<R>, container: Container) -> Result<Self, Error>
    where
        R: Read + Seek + Send + Sync + 'static,
    {
        if matches!(container, Container::Wave64 | Container::Amr | Container::Asf) {
            return Err(Error::UnsupportedCodec { codec: container.extension().to_owned() });
        }
        let watch = source.watch();
        let is_mp4 = matches!(container, Container::Mp4 | Container::M4a | Container::ThreeGp);
        let mut movie = Movie::default();
        if is_mp4 {
            movie = Movie::find(&mut source)?;
            if !movie.has_file_type {
                source.append(movie::FILE_TYPE);
            }
        }
        // A file that is shorter than it states would be refused if symphonia knew.
        let is_cut = match container {
            Container::WebM | Container::Matroska => true,
            Container::Aiff => {
                let head = source.take_bytes(8)?;
                source.go_to(0)?;
                be_u32(&head, 4).is_some_and(|len| u64::from(len) + 8 > source.len())
            }
            _ => false,
        };
        if is_cut {
            source.make_stream();
        }
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        let options = FormatOptions::default();
        let format = if is_mp4 {
            IsoMp4Reader::try_new(stream, options).map(|reader| Box::new(reader) as Box<dyn FormatReader>)
        } else {
            // The hint is of no use to symphonia yet: it looks at the content.
            symphonia::default::get_probe().probe(&Hint::new(), stream, options, MetadataOptions::default())
        };
        let format = match format {
            Ok(format) => format,
            Err(error) => return Err(watch.check().err().unwrap_or_else(|| malformed(&error))),
        };
        let (track, codec) = select(&*format, movie.codec)?;
        Ok(Self {
            format,
            watch,
            track,
            codec,
            edit: movie.edit,
            window: None,
            decoded: false,
            broken: false,
        })
    }

    /// Decodes the next packet of the track; `false` at the end of what can be read.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, Error> {
        loop {
            let packet = self.format.next_packet();
            self.watch.check()?;
            match packet {
                Ok(Some(packet)) if packet.track_id == self.track => {
                    if self.decode(&packet, block) && self.trim(block) {
                        self.decoded = true;
                        return Ok(true);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return self.end(Error::NoAudio),
                // Another stream follows this one, with its own header.
                Err(Symphonia::ResetRequired) => {
                    (self.track, self.codec) = select(&*self.format, None)?;
                    self.window = None;
                }
                // Live WebM and truncated files end like this.
                Err(error) => {
                    tracing::debug!(%error, "unreadable packet ends the file");
                    return self.end(malformed(&error));
                }
            }
        }
    }

    /// The end of the file, which is not an error if there was audio before.
    fn end(&self, error: Error) -> Result<bool, Error> {
        match error {
            _ if self.decoded => Ok(false),
            Error::NoAudio if self.broken => Err(Error::Corrupted { reason: "no packet can be decoded" }),
            error => Err(error),
        }
    }

    /// Decodes a packet; `false` if it gave nothing. A broken packet among others becomes silence as long as the last one.
    fn decode(&mut self, packet: &Packet, block: &mut Block) -> bool {
        let decoded = match &mut self.codec {
            Codec::Opus(decoder) => decoder.decode(&packet.data, packet.trim_end.get(), block),
            Codec::Symphonia(decoder) => match decoder.decode(packet) {
                Ok(audio) => {
                    block.rate = audio.spec().rate();
                    block.channels = u16::try_from(audio.spec().channels().count()).unwrap_or(0);
                    block.interleaved = block.channels;
                    audio.copy_to_vec_interleaved(&mut block.samples);
                    true
                }
                Err(error) => {
                    tracing::debug!(%error, "undecodable packet");
                    false
                }
            },
        };
        if !decoded {
            self.broken = true;
            block.samples.fill(0.0);
        }
        (decoded || self.decoded) && block.interleaved > 0 && !block.samples.is_empty()
    }

    /// Cuts off what is not to be played; `false` if nothing is left.
    fn trim(&mut self, block: &mut Block) -> bool {
        let (skip, keep) = self.window.get_or_insert_with(|| {
            let frames = |seconds: f64| (seconds * f64::from(block.rate)).round() as u64;
            let skip = self.edit.map_or(0, |edit| frames(edit.start));
            let keep = self.edit.and_then(|edit| edit.seconds).map_or(u64::MAX, frames);
            match &self.codec {
                // In MP4 both the edit list and the header may state the same pre-skip.
                Codec::Opus(decoder) => (skip.max(decoder.pre_skip), keep),
                Codec::Symphonia(_) => (skip, keep),
            }
        });
        let width = usize::from(block.interleaved);
        let frames = (block.samples.len() / width) as u64;
        let dropped = frames.min(*skip);
        let kept = (frames - dropped).min(*keep);
        (*skip, *keep) = (*skip - dropped, *keep - kept);
        block.samples.truncate((dropped + kept) as usize * width);
        block.samples.drain(..dropped as usize * width);
        kept > 0
    }
}

/// The first audio track that can be decoded, those marked as default first.
fn select(format: &dyn FormatReader, code: Option<[u8; 4]>) -> Result<(u32, Codec), Error> {
    let default = format.default_track(TrackType::Audio);
    let mut failure = None;
    for track in default.into_iter().chain(format.tracks()) {
        let Some(parameters) = track.codec_params.as_ref().and_then(|parameters| parameters.audio()) else {
            continue;
        };
        match decoder(parameters) {
            Ok(codec) => return Ok((track.id, codec)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // Symphonia drops what it does not know by name.
    Err(match (failure, code) {
        (Some(error), _) => error,
        (None, Some(code)) => Error::UnsupportedCodec { codec: code.escape_ascii().to_string() },
        (None, None) => Error::NoAudio,
    })
}

fn decoder(parameters: &AudioCodecParameters) -> Result<Codec, Error> {
    let mut parameters = parameters.clone();
    if parameters.codec == well_known::CODEC_ID_OPUS {
        let channels = parameters.channels.as_ref().map_or(1, |channels| channels.count());
        let head = parameters.extra_data.as_deref().unwrap_or_default();
        return opus::Decoder::new(head, u16::try_from(channels).unwrap_or(0)).map(Codec::Opus);
    }
    if parameters.codec == well_known::CODEC_ID_AAC
        && let Some(core) = parameters.extra_data.as_deref().and_then(aac::core_config)
    {
        parameters.extra_data = Some(core);
    }
    match CODECS.make_audio_decoder(&parameters, &AudioDecoderOptions::default()) {
        Ok(decoder) => Ok(Codec::Symphonia(decoder)),
        Err(Symphonia::Unsupported(_)) => Err(Error::UnsupportedCodec { codec: name(&parameters) }),
        Err(error) => Err(malformed(&error)),
    }
}

fn name(parameters: &AudioCodecParameters) -> String {
    let known = match parameters.codec {
        well_known::CODEC_ID_AAC => "aac of a profile other than lc",
        well_known::CODEC_ID_AC3 => "ac-3",
        well_known::CODEC_ID_EAC3 => "e-ac-3",
        well_known::CODEC_ID_AC4 => "ac-4",
        well_known::CODEC_ID_DCA => "dts",
        well_known::CODEC_ID_TRUEHD => "truehd",
        well_known::CODEC_ID_SPEEX => "speex",
        well_known::CODEC_ID_WMA => "wma",
        other => return other.to_string(),
    };
    known.to_owned()
}

/// What symphonia says, without what it read.
fn malformed(error: &Symphonia) -> Error {
    let reason = match error {
        Symphonia::DecodeError(reason) | Symphonia::Unsupported(reason) | Symphonia::LimitError(reason) => {
            reason
        }
        Symphonia::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends too early"
        }
        Symphonia::IoError(_) | Symphonia::SeekError(_) => "the file points outside of itself",
        Symphonia::ResetRequired => "the file changes its tracks",
        _ => "the file cannot be read",
    };
    Error::Corrupted { reason }
}
