//! The session object of OpenAI's Realtime API: what a client sets, judged field by field, and the object that is shown.
//!
//! The shapes of the present API and of its beta are both read, nested and flat. A field that is missing stays as it is; null
//! clears it.

use serde_json::{Map, Value, json};

use crate::audio::Sample;
use crate::error::Error;
use crate::job::language;
use crate::stream::{Format, Rules, Settings, samples};

/// Models whose audio only the client commits, unless it says otherwise.
const MANUAL_MODELS: [&str; 2] = ["gpt-realtime-whisper", "gpt-live-transcribe"];
/// Rate of PCM where none is named.
const PCM_RATE: u32 = 24_000;
/// Longest segment, milliseconds: of those that silence ends, and of those that the client commits.
const MAX_SPOKEN: u64 = 30_000;
const MAX_COMMITTED: u64 = 120_000;

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text of speech.
    Transcription,
    /// Speech of texts, and text of speech.
    Conversation,
}

/// How turns end.
#[derive(Clone, Debug, PartialEq)]
pub enum Turns {
    /// By the client's commits.
    Client,
    /// By silence.
    Server {
        /// Least score of speech.
        threshold: f64,
        /// Padding, milliseconds.
        prefix: u64,
        /// Silence, milliseconds.
        silence: u64,
    },
    /// By silence and by what was said.
    Semantic {
        /// `low`, `medium`, `high` or `auto`.
        eagerness: &'static str,
    },
}

impl Turns {
    const SERVER: Self = Self::Server { threshold: 0.5, prefix: 300, silence: 500 };
}

/// How audio becomes text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcription {
    /// The model by the client's name.
    pub model: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// Vocabulary and context.
    pub prompt: Option<String>,
    /// Whether finals say who speaks; by the name of the model where it is not said.
    pub diarize: Option<bool>,
}

impl Transcription {
    /// Whether finals say who speaks.
    pub fn diarizes(&self) -> bool {
        self.diarize.unwrap_or_else(|| self.model.as_ref().is_some_and(|model| model.ends_with("-diarize")))
    }
}

/// A session as it is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What it is for.
    pub kind: Kind,
    /// The audio in.
    pub input: Format,
    /// `None` where audio has no text.
    pub transcription: Option<Transcription>,
    /// `None` until the client sets it.
    turns: Option<Turns>,
    /// The model of the session.
    pub model: Option<String>,
    /// The voice by the client's name.
    pub voice: Option<String>,
    /// Samples per second of the audio out.
    pub output_rate: u32,
    /// What has no effect here and is shown as it was set.
    shown: Map<String, Value>,
}

impl Config {
    /// A session of that kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            input: Format { sample: Sample::S16, rate: PCM_RATE },
            transcription: (kind == Kind::Transcription).then(Transcription::default),
            turns: None,
            model: None,
            voice: None,
            output_rate: PCM_RATE,
            shown: Map::new(),
        }
    }

    /// How turns end.
    pub fn turns(&self) -> Turns {
        let model = self.transcription.as_ref().and_then(|wanted| wanted.model.as_deref());
        let manual = model.is_some_and(|model| MANUAL_MODELS.contains(&model));
        self.turns.clone().unwrap_or(if manual { Turns::Client } else { Turns::SERVER })
    }

    /// What the session core is to do.
    pub fn settings(&self) -> Settings {
        let base = Settings {
            hears: self.transcription.is_some(),
            appends: true,
            speakers: self.transcription.as_ref().is_some_and(Transcription::diarizes),
            max: samples(MAX_SPOKEN),
            ..Settings::new(self.input)
        };
        match self.turns() {
            Turns::Client => Settings { rules: None, max: samples(MAX_COMMITTED), ..base },
            Turns::Server { threshold, prefix, silence } => {
                let rules = Rules {
                    threshold: threshold as f32,
                    pad: samples(prefix),
                    silence: samples(silence),
                    ..Rules::default()
                };
                Settings { rules: Some(rules), ..base }
            }
            Turns::Semantic { eagerness } => {
                let longest = match eagerness {
                    "low" => 8_000,
                    "high" => 2_000,
                    _ => 4_000,
                };
                Settings { eagerness: Some(samples(longest)), ..base }
            }
        }
    }

    /// Takes over what `session` has.
    ///
    /// # Errors
    /// The first field that cannot be met: then nothing is to be taken over.
    pub fn update(&mut self, session: &Map<String, Value>) -> Result<(), Error> {
        match session.get("type") {
            None | Some(Value::Null) => {}
            Some(Value::String(kind)) if kind == "transcription" => {
                if self.kind != Kind::Transcription {
                    self.transcription.get_or_insert_default();
                }
                self.kind = Kind::Transcription;
            }
            Some(Value::String(kind)) if kind == "realtime" => self.kind = Kind::Conversation,
            Some(_) => return Err(wrong("session.type", "must be 'transcription' or 'realtime'")),
        }
        if let Some(model) = text(session, "model", "session.model")? {
            self.model = model;
        }
        let none = Map::new();
        let audio = object(session, "audio", "session.audio")?.unwrap_or(&none);
        let input = object(audio, "input", "session.audio.input")?.unwrap_or(&none);
        let output = object(audio, "output", "session.audio.output")?.unwrap_or(&none);
        if let Some(format) = input.get("format").or_else(|| session.get("input_audio_format")) {
            self.input = input_format(format)?;
        }
        if let Some(wanted) = input.get("transcription").or_else(|| session.get("input_audio_transcription"))
        {
            self.transcription = self.updated_transcription(wanted)?;
        }
        if let Some(wanted) = input.get("turn_detection").or_else(|| session.get("turn_detection")) {
            self.turns = Some(turns(wanted)?);
        }
        if let Some(format) = output.get("format").or_else(|| session.get("output_audio_format")) {
            self.output_rate = output_rate(format)?;
        }
        for (from, path) in [(output, "session.audio.output.voice"), (session, "session.voice")] {
            match from.get("voice") {
                Some(Value::Object(voice)) => self.voice = text(voice, "id", path)?.flatten(),
                Some(_) => self.voice = text(from, "voice", path)?.flatten(),
                None => {}
            }
        }
        let speed = output.get("speed").and_then(Value::as_f64);
        if speed.is_some_and(|speed| speed != 1.0) {
            return Err(wrong("session.audio.output.speed", "only speed 1 is supported in sessions"));
        }
        for name in ["include", "instructions", "output_modalities", "tracing", "max_output_tokens"] {
            self.show(name, session.get(name));
        }
        self.show(
            "noise_reduction",
            input.get("noise_reduction").or_else(|| session.get("input_audio_noise_reduction")),
        );
        let includes = session.get("include").and_then(Value::as_array);
        if includes.is_some_and(|includes| !includes.is_empty()) {
            return Err(wrong(
                "session.include",
                "log probabilities are not supported: the engines give none",
            ));
        }
        Ok(())
    }

    fn show(&mut self, name: &str, value: Option<&Value>) {
        /// Longer ones are taken and not shown.
        const LONGEST: usize = 4096;
        if let Some(value) = value.filter(|value| value.to_string().len() <= LONGEST) {
            self.shown.insert(name.to_owned(), value.clone());
        }
    }

    fn updated_transcription(&self, wanted: &Value) -> Result<Option<Transcription>, Error> {
        const PATH: &str = "session.audio.input.transcription";
        let wanted = match wanted {
            Value::Null => return Ok(None),
            Value::Object(wanted) => wanted,
            _ => return Err(wrong(PATH, "must be an object or null")),
        };
        let mut now = self.transcription.clone().unwrap_or_default();
        if let Some(model) = text(wanted, "model", "session.audio.input.transcription.model")? {
            now.model = model;
        }
        match wanted.get("diarize") {
            None => {}
            Some(Value::Null) => now.diarize = None,
            Some(Value::Bool(diarize)) => now.diarize = Some(*diarize),
            Some(_) => {
                return Err(wrong(
                    "session.audio.input.transcription.diarize",
                    "must be true, false or null",
                ));
            }
        }
        let languages = wanted.get("languages").and_then(Value::as_array);
        let first = languages.and_then(|languages| languages.first()).and_then(Value::as_str);
        let named = text(wanted, "language", "session.audio.input.transcription.language")?;
        if first.is_some() && named.as_ref().is_some_and(Option::is_some) {
            return Err(wrong(
                "session.audio.input.transcription.languages",
                "give language or languages, not both",
            ));
        }
        // Several are a hint that no engine takes.
        let several = languages.is_some_and(|languages| languages.len() > 1);
        if let Some(name) = named.or_else(|| first.map(|first| Some(first.to_owned()))) {
            let name = name.filter(|_| !several);
            now.language = match name.as_deref().map(language::requested) {
                None => None,
                Some(Ok(language)) => language,
                Some(Err(_)) => {
                    let path = "session.audio.input.transcription.language";
                    return Err(wrong(path, "is not a language code such as en or en-US"));
                }
            };
        }
        let prompt = text(wanted, "prompt", "session.audio.input.transcription.prompt")?;
        let keywords = wanted.get("keywords").and_then(Value::as_array);
        let keywords: Option<Vec<&str>> =
            keywords.map(|words| words.iter().filter_map(Value::as_str).collect());
        if prompt.is_some() || keywords.is_some() {
            let parts = [prompt.flatten(), keywords.map(|words| words.join(", "))];
            let all: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            now.prompt = (!all.is_empty()).then(|| all.join("\n"));
        }
        Ok(Some(now))
    }

    /// The object that clients see.
    pub fn object(&self, id: &str, expires_at: u64) -> Value {
        let transcription = self.transcription.as_ref().map(|wanted| {
            let prompt = wanted.prompt.as_deref().unwrap_or_default();
            let mut shown = json!({"model": wanted.model, "language": wanted.language, "prompt": prompt});
            if let Some(diarize) = wanted.diarize {
                shown["diarize"] = json!(diarize);
            }
            shown
        });
        let turns = match self.turns() {
            Turns::Client => Value::Null,
            Turns::Server { threshold, prefix, silence } => json!({
                "type": "server_vad", "threshold": threshold, "prefix_padding_ms": prefix,
                "silence_duration_ms": silence, "idle_timeout_ms": null,
                "create_response": false, "interrupt_response": false,
            }),
            Turns::Semantic { eagerness } => json!({
                "type": "semantic_vad", "eagerness": eagerness, "create_response": false, "interrupt_response": false,
            }),
        };
        let shown = |name: &str| self.shown.get(name).cloned().unwrap_or(Value::Null);
        let input = json!({
            "format": shown_format(self.input), "transcription": transcription,
            "noise_reduction": shown("noise_reduction"), "turn_detection": turns,
        });
        match self.kind {
            Kind::Transcription => json!({
                "type": "transcription", "object": "realtime.transcription_session", "id": id,
                "expires_at": expires_at, "audio": {"input": input}, "include": shown("include"),
            }),
            Kind::Conversation => json!({
                "type": "realtime", "object": "realtime.session", "id": id, "expires_at": expires_at,
                "model": self.model, "output_modalities": self.shown.get("output_modalities").cloned().unwrap_or_else(|| json!(["audio"])),
                "instructions": self.shown.get("instructions").cloned().unwrap_or_else(|| json!("")),
                "audio": {
                    "input": input,
                    "output": {"format": {"type": "audio/pcm", "rate": self.output_rate}, "voice": self.voice, "speed": 1.0},
                },
                "tools": [], "tool_choice": "none", "max_output_tokens": "inf", "include": shown("include"),
                "tracing": null, "truncation": "disabled", "prompt": null,
            }),
        }
    }
}

fn shown_format(format: Format) -> Value {
    match format.sample {
        Sample::MuLaw => json!({"type": "audio/pcmu"}),
        Sample::ALaw => json!({"type": "audio/pcma"}),
        _ => json!({"type": "audio/pcm", "rate": format.rate}),
    }
}

fn input_format(format: &Value) -> Result<Format, Error> {
    const PATH: &str = "session.audio.input.format";
    let pcm = |rate| Format { sample: Sample::S16, rate };
    let (name, rate) = match format {
        Value::String(name) => (name.as_str(), None),
        Value::Object(format) => {
            (format.get("type").and_then(Value::as_str).unwrap_or_default(), format.get("rate"))
        }
        _ => return Err(wrong(PATH, "must be an object such as {\"type\": \"audio/pcm\", \"rate\": 24000}")),
    };
    match name {
        "audio/pcm" | "pcm16" => match rate {
            None | Some(Value::Null) => Ok(pcm(PCM_RATE)),
            Some(rate) => match rate.as_u64().and_then(|rate| u32::try_from(rate).ok()) {
                Some(rate) if (8_000..=48_000).contains(&rate) => Ok(pcm(rate)),
                _ => {
                    Err(wrong("session.audio.input.format.rate", "must be a whole number from 8000 to 48000"))
                }
            },
        },
        "audio/pcmu" | "g711_ulaw" => Ok(Format { sample: Sample::MuLaw, rate: 8_000 }),
        "audio/pcma" | "g711_alaw" => Ok(Format { sample: Sample::ALaw, rate: 8_000 }),
        _ => Err(wrong(PATH, "must be audio/pcm, audio/pcmu or audio/pcma")),
    }
}

fn output_rate(format: &Value) -> Result<u32, Error> {
    match input_format(format) {
        Ok(Format { sample: Sample::S16, rate }) => Ok(rate),
        _ => Err(wrong("session.audio.output.format", "only audio/pcm is supported")),
    }
}

fn turns(wanted: &Value) -> Result<Turns, Error> {
    const PATH: &str = "session.audio.input.turn_detection";
    let wanted = match wanted {
        Value::Null => return Ok(Turns::Client),
        Value::Object(wanted) => wanted,
        _ => return Err(wrong(PATH, "must be an object or null")),
    };
    let number = |name: &'static str, default: f64, most: f64| match wanted.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|value| (0.0..=most).contains(value))
            .ok_or_else(|| wrong(PATH, &format!("{name} must be a number from 0 to {most}"))),
    };
    match wanted.get("type").and_then(Value::as_str) {
        None | Some("server_vad") => Ok(Turns::Server {
            threshold: number("threshold", 0.5, 1.0)?,
            prefix: number("prefix_padding_ms", 300.0, 5_000.0)? as u64,
            silence: number("silence_duration_ms", 500.0, 10_000.0)? as u64,
        }),
        Some("semantic_vad") => match wanted.get("eagerness").and_then(Value::as_str).unwrap_or("auto") {
            "low" => Ok(Turns::Semantic { eagerness: "low" }),
            "medium" => Ok(Turns::Semantic { eagerness: "medium" }),
            "high" => Ok(Turns::Semantic { eagerness: "high" }),
            "auto" => Ok(Turns::Semantic { eagerness: "auto" }),
            _ => Err(wrong(PATH, "eagerness must be low, medium, high or auto")),
        },
        Some(_) => Err(wrong(PATH, "type must be server_vad or semantic_vad")),
    }
}

/// A string: `None` when it is missing, `Some(None)` when it is null or empty.
fn text(from: &Map<String, Value>, name: &str, path: &'static str) -> Result<Option<Option<String>>, Error> {
    match from.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Some(None)),
        Some(Value::String(text)) if text.len() <= 8 * 1024 => Ok(Some(Some(text.clone()))),
        Some(_) => Err(wrong(path, "must be a string of at most 8192 bytes")),
    }
}

fn object<'a>(
    from: &'a Map<String, Value>,
    name: &str,
    path: &'static str,
) -> Result<Option<&'a Map<String, Value>>, Error> {
    match from.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(wrong(path, "must be an object")),
    }
}

fn wrong(path: &'static str, what: &str) -> Error {
    Error::param(path, format!("{path} {what}"))
}

#[cfg(test)]
mod tests;
