//! Speakers that a request knows: by recordings that come with it, or by names that were enrolled before.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::api::form::{Fields, Split};
use crate::api::{Context, Owner};
use crate::audio::{Container, convert, wav};
use crate::clips::{Kind, MAX_NAME};
use crate::error::Error;
use crate::job::known::{MAX_SPEAKERS, Reference, SECONDS};

/// What both names begin with.
const PREFIX: &str = "known_speaker_";
const NAMES: &str = "known_speaker_names";
const REFERENCES: &str = "known_speaker_references";
/// What a frame of a codec may add to a recording, seconds.
const SLACK: f64 = 0.2;

/// The speakers that a form names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Their names.
    pub names: Vec<String>,
    /// A `data:` URL for each; none when all are enrolled.
    references: Vec<String>,
}

impl Known {
    /// Reads the fields.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn read(fields: &Fields, speakers: bool) -> Result<Self, Error> {
        // Most forms have neither.
        if !fields.pairs().iter().any(|(name, _)| name.starts_with(PREFIX)) {
            return Ok(Self::default());
        }
        let known = Self {
            names: fields.items(NAMES, Split::Bare),
            references: fields.items(REFERENCES, Split::Never),
        };
        if known.names.is_empty() && known.references.is_empty() {
            return Ok(known);
        }
        if !speakers {
            let message = "known speakers need response_format=diarized_json, or diarize=true";
            return Err(Error::param(NAMES, message));
        }
        if known.names.len() > MAX_SPEAKERS {
            return Err(Error::param(
                NAMES,
                format!("known_speaker_names[] has at most {MAX_SPEAKERS} names"),
            ));
        }
        for (nth, name) in known.names.iter().enumerate() {
            check_name(NAMES, name)?;
            if known.names[..nth].contains(name) {
                return Err(Error::param(NAMES, "known_speaker_names[] has a name twice"));
            }
        }
        if !known.references.is_empty() && known.references.len() != known.names.len() {
            let message = "send one entry of known_speaker_references[] for each of known_speaker_names[], or none for speakers that are enrolled";
            return Err(Error::param(REFERENCES, message));
        }
        Ok(known)
    }

    /// Whether there are recordings in the form.
    pub fn has_recordings(&self) -> bool {
        !self.references.is_empty()
    }

    /// How the speakers sound.
    ///
    /// # Errors
    /// A 400 for a recording that cannot be used, or a name that `owner` has not enrolled.
    pub async fn references(&self, context: &Context, owner: Owner<'_>) -> Result<Vec<Reference>, Error> {
        let mut all = Vec::with_capacity(self.names.len());
        for (nth, name) in self.names.iter().enumerate() {
            let pcm = match self.references.get(nth) {
                Some(url) => decode(REFERENCES, of_url(url)?, None, SECONDS, convert::RATE).await?,
                None => enrolled(context, owner, name).await?,
            };
            all.push(Reference { name: name.clone(), pcm });
        }
        Ok(all)
    }
}

/// What is wrong with the name of a speaker or voice.
///
/// # Errors
/// A 400 that names the parameter.
pub fn check_name(param: &'static str, name: &str) -> Result<(), Error> {
    let fits = (1..=MAX_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(Error::param(param, format!("a name must have 1 to {MAX_NAME} characters and no line ends")))
    }
}

async fn enrolled(context: &Context, owner: Owner<'_>, name: &str) -> Result<Bytes, Error> {
    let found = super::clips::find(context, Kind::Speaker, owner, name).await?;
    let Some((_, file)) = found else {
        let message = format!(
            "no speaker '{name}' is enrolled; POST /v1/audio/speakers enrols one, or send known_speaker_references[]"
        );
        return Err(Error::param(NAMES, message));
    };
    Ok(file.slice(file.len().min(wav::HEADER_LEN)..))
}

/// The file of a `data:` URL.
fn of_url(url: &str) -> Result<Bytes, Error> {
    let wrong = || {
        Error::param(
            REFERENCES,
            "known_speaker_references[] must be data URLs such as data:audio/wav;base64,...",
        )
    };
    let (head, data) = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')).ok_or_else(wrong)?;
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(wrong());
    }
    STANDARD.decode(data.trim()).map(Bytes::from).map_err(|_| wrong())
}

/// The samples of a short file, mono, s16le, at that rate.
///
/// # Errors
/// A 400 that names the parameter: it is no audio, or shorter or longer than `seconds`.
pub async fn decode(
    param: &'static str,
    file: Bytes,
    container: Option<Container>,
    seconds: std::ops::RangeInclusive<f64>,
    rate: u32,
) -> Result<Bytes, Error> {
    let Some(container) = container.or_else(|| Container::sniff(&file)) else {
        return Err(Error::param(param, "the recording is not audio of a known format"));
    };
    let (least, most) = seconds.into_inner();
    let limits = convert::Limits { max_seconds: most + SLACK, rate, stop: Arc::new(AtomicBool::new(false)) };
    let work = move || {
        let mut pcm = Vec::new();
        convert::to_pcm(Cursor::new(file), container, &limits, &mut pcm).map(|_| pcm)
    };
    let length = || Error::param(param, format!("a recording of a voice must have {least} to {most} s"));
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(pcm)) if pcm.len() as f64 / 2.0 < (least - SLACK) * f64::from(rate) => Err(length()),
        Ok(Ok(pcm)) => Ok(pcm.into()),
        Ok(Err(convert::Error::TooLong { .. })) => Err(length()),
        Ok(Err(error)) => Err(Error::param(param, format!("the recording cannot be used: {error}"))),
        Err(_) => Err(Error::param(param, "the recording cannot be decoded")),
    }
}
