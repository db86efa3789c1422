//! The JSON of a speech request, judged parameter by parameter.

use axum::body::Body;
use serde_json::{Map, Value};

use contract::Capability;

use crate::api::openai::clips;
use crate::api::speech::{self, Speech};
use crate::api::{Context, Owner, small};
use crate::audio::{OutputFormat, SPEEDS};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;
use crate::job::plain::plain;
use crate::job::voice::VoiceName;

/// Largest body: 4096 code points in the longest escapes, instructions, and room.
const BODY_BYTES: usize = 256 * 1024;
/// Rate of OpenAI's audio, and of all that names no other.
const SAMPLE_RATE: u32 = 24_000;
/// The names of all formats.
pub const AUDIO_FORMATS: [&str; 7] = ["mp3", "opus", "aac", "flac", "wav", "pcm", "webm"];
/// How much louder or softer than its own a voice may be.
const VOLUMES: std::ops::RangeInclusive<f64> = 0.0..=4.0;

/// What the client sent.
#[derive(Debug)]
pub(super) struct Wanted(Map<String, Value>);

impl Wanted {
    /// Reads the body.
    pub(super) async fn read(body: Body) -> Result<Self, Error> {
        let body = small::read(body, BODY_BYTES).await?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(invalid("the request body must be a JSON object")),
            Err(error) => Err(invalid(format!("the request body is not valid JSON: {error}"))),
        }
    }

    /// Names a model where the client names none.
    pub(super) fn model_unless_given(&mut self, model: String) {
        if self.given("model").is_none() {
            self.0.insert("model".to_owned(), Value::String(model));
        }
    }

    /// Judges everything that needs no list of voices, then the voice. The flag says whether the audio comes as events.
    pub(super) async fn check(
        &self,
        context: &Context,
        (request_id, owner): (&RequestId, Owner<'_>),
    ) -> Result<(Speech, bool), Error> {
        let mut input = self.input()?;
        let model = self.text("model")?;
        let route = context.route(request_id, model, Capability::Tts)?;
        let format = self.format(model)?;
        let sample_rate = self.sample_rate(format)?;
        let speed = self.speed()?;
        let events = self.events()?;
        self.refuse_unsupported()?;
        // Before names are looked up: what is left can only fail by the voice.
        let language = self.language()?;
        let volume = self.volume()?;
        let (emotion, instructions) = (self.text("emotion")?, self.instructions()?);
        let cleans = self.flag("clean_text")?;
        let prompt = clips::imitated(context, self.voice()?, owner).await?;
        if prompt.is_some() && !context.upstreams.imitates(&route) {
            return Err(Error::param("voice", "no engine here imitates voices"));
        }
        let voice = match &prompt {
            Some(_) => context.config.get().gateway.clips.base_voice.clone(),
            None => {
                let voice = voice(context, self.voice()?, model).await?;
                speech::emotional(context, voice, emotion, instructions).await?
            }
        };
        let language = language.unwrap_or_else(|| speech::language_of(&voice));
        if cleans.unwrap_or_else(|| context.upstreams.stumbles(&route)) {
            input = plain(&input).into_owned();
        }
        let dictionary = None;
        let speech =
            Speech { input, voice, language, format, sample_rate, speed, dictionary, volume, prompt, route };
        Ok((speech, events))
    }

    fn input(&self) -> Result<String, Error> {
        speech::text("input", self.text("input")?.unwrap_or_default())
    }

    /// OpenAI's default is MP3. Who names no model, or a sample rate, speaks spark-control's dialect, whose default is WAV.
    fn format(&self, model: Option<&str>) -> Result<OutputFormat, Error> {
        let openai = model.is_some() && self.given("sample_rate_hz").is_none();
        let format = match self.text("response_format")? {
            None if openai && cfg!(feature = "mp3lame") => OutputFormat::Mp3,
            None => OutputFormat::Wav,
            Some(name) => OutputFormat::parse(name).ok_or_else(|| {
                let supported = AUDIO_FORMATS.join(", ");
                let message = format!("response_format '{name}' is not supported; use one of {supported}");
                Error::param("response_format", message)
            })?,
        };
        if format == OutputFormat::Mp3 && !cfg!(feature = "mp3lame") {
            return Err(Error::param("response_format", "mp3 is not built in; use opus, flac, wav or pcm"));
        }
        Ok(format)
    }

    /// `sample_rate_hz`, or `sample_rate` as other servers name it: one that the format has.
    fn sample_rate(&self, format: OutputFormat) -> Result<u32, Error> {
        let named = ["sample_rate_hz", "sample_rate"].into_iter();
        let Some((name, value)) = named.filter_map(|name| Some((name, self.given(name)?))).next() else {
            return Ok(SAMPLE_RATE);
        };
        let rate = number(value).filter(|rate| rate.fract() == 0.0 && (8_000.0..=48_000.0).contains(rate));
        let Some(rate) = rate.map(|rate| rate as u32) else {
            return Err(Error::param(name, format!("{name} must be a whole number from 8000 to 48000")));
        };
        format.check(rate).map_err(|error| Error::param(name, error.to_string()))?;
        Ok(rate)
    }

    fn speed(&self) -> Result<f64, Error> {
        let Some(value) = self.given("speed") else { return Ok(1.0) };
        number(value)
            .filter(|speed| SPEEDS.contains(speed))
            .ok_or_else(|| Error::param("speed", "speed must be a number from 0.25 to 4.0"))
    }

    /// `volume`, or as Kokoro's server names it.
    fn volume(&self) -> Result<f32, Error> {
        let given = self.given("volume").or_else(|| self.given("volume_multiplier"));
        let Some(value) = given else { return Ok(1.0) };
        let volume = number(value).filter(|volume| VOLUMES.contains(volume));
        volume
            .map(|volume| volume as f32)
            .ok_or_else(|| Error::param("volume", "volume must be a number from 0 to 4"))
    }

    /// A manner of speaking; OpenAI's limit. Clients send the text "None" for none.
    fn instructions(&self) -> Result<Option<&str>, Error> {
        let text = self.text("instructions")?.filter(|text| *text != "None");
        if text.is_some_and(|text| text.chars().count() > speech::MAX_CODE_POINTS) {
            let message = format!("instructions must have at most {} characters", speech::MAX_CODE_POINTS);
            return Err(Error::param("instructions", message));
        }
        Ok(text)
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, Error> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Error::param(name, format!("{name} must be true or false"))),
        }
    }

    fn events(&self) -> Result<bool, Error> {
        match self.text("stream_format")? {
            None | Some("audio") => Ok(false),
            Some("sse") => Ok(true),
            Some(other) => {
                let message = format!("stream_format '{other}' is not supported; use audio or sse");
                Err(Error::param("stream_format", message))
            }
        }
    }

    /// What changes the speech and no engine can do.
    fn refuse_unsupported(&self) -> Result<(), Error> {
        match self.text("encoding")? {
            None | Some("LINEAR_PCM") => Ok(()),
            Some(_) => {
                Err(Error::param("encoding", "encoding must be LINEAR_PCM; choose with response_format"))
            }
        }
    }

    /// `language`, or `lang_code` as other servers name it, whose own letters for languages say nothing here.
    fn language(&self) -> Result<Option<String>, Error> {
        let Some(name) = self.text("language")? else {
            return Ok(language::requested(self.text("lang_code")?.unwrap_or_default()).unwrap_or_default());
        };
        language::requested(name)
            .map_err(|_| Error::param("language", format!("'{name}' is not a language code such as en-US")))
    }

    /// A name, or an object with an `id`.
    fn voice(&self) -> Result<Option<&str>, Error> {
        match self.given("voice") {
            Some(Value::Object(voice)) => match voice.get("id").and_then(Value::as_str) {
                Some(id) => Ok(Some(id)),
                None => Err(Error::param("voice", "voice must be a name or an object with an id")),
            },
            _ => self.text("voice"),
        }
    }

    /// A string that is there and not empty.
    fn text(&self, name: &'static str) -> Result<Option<&str>, Error> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::param(name, format!("{name} must be a string"))),
        }
    }

    fn given(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }
}

/// The engine's voice for a client's name; without one the model's, if a voice is named as model, else the default.
async fn voice(context: &Context, name: Option<&str>, model: Option<&str>) -> Result<String, Error> {
    let config = context.config.get();
    let settings = &config.gateway;
    let Some(name) = name else {
        let model = model.filter(|model| VoiceName::parse(model).is_some());
        return Ok(model.unwrap_or(&settings.default_voice).to_owned());
    };
    speech::voice(context, "voice", name).await
}

/// A number, or a number in quotes.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidRequest { param: None, code: Some("invalid_json"), message: message.into() }
}
