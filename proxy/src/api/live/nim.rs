//! The realtime dialect of NVIDIA's speech NIM, on the path that it shares with OpenAI's: partial texts replace each other, commits are
//! advice, `input_audio_buffer.done` ends the audio.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::{Dialect, Ending, Opened, Out, base64};
use crate::api::Context;
use crate::api::head::{Begun, Head};
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;
use crate::job::work::{Need, Transcribe, Transcript};
use crate::rng::Rng;
use crate::stream::{Ask, Event, Format, Input, Rules, Session, Settings, samples};

/// What the subprotocol that carries a NIM session's secret begins with.
pub const TOKEN_PROTOCOL: &str = "realtime-token.";
/// Largest body of a request for a session.
const HEAD_BYTES: usize = 64 * 1024;

/// `POST /v1/realtime/transcription_sessions`: the session as it is set without a word from the client, under what it sends.
///
/// # Errors
/// The body is no JSON object.
pub async fn create(request: Request) -> Result<Json<Value>, Error> {
    let mut session = default_session(&tag());
    for (name, value) in read(request.into_body()).await? {
        session[name] = value;
    }
    Ok(Json(session))
}

async fn read(body: Body) -> Result<Map<String, Value>, Error> {
    let body = Limited::new(body, HEAD_BYTES).collect().await;
    let body = body.map_err(|_| Error::TooLarge { limit: HEAD_BYTES as u64 })?.to_bytes();
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ if body.is_empty() => Ok(Map::new()),
        _ => Err(Error::InvalidRequest {
            param: None,
            code: Some("invalid_json"),
            message: "the request body must be a JSON object".into(),
        }),
    }
}

fn tag() -> String {
    format!("{:016x}", Rng::random().roll())
}

fn default_session(tag: &str) -> Value {
    json!({
        "id": format!("sess_{tag}"), "object": "realtime.transcription_session", "modalities": ["text"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"language": "en-US", "model": "", "prompt": ""},
        "input_audio_params": {"sample_rate_hz": 16000, "num_channels": 1},
        "recognition_config": {
            "max_alternatives": 1, "enable_automatic_punctuation": false, "enable_word_time_offsets": false,
            "enable_profanity_filter": false, "enable_verbatim_transcripts": false,
        },
        "speaker_diarization": {"enable_speaker_diarization": false, "max_speaker_count": 8},
        "word_boosting": {"enable_word_boosting": false, "word_boosting_list": []},
        "endpointing_config": {
            "start_history": 0, "start_threshold": 0, "stop_history": 0, "stop_threshold": 0,
            "stop_history_eou": 0, "stop_threshold_eou": 0,
        },
        "client_secret": null,
    })
}

/// Whether an update of a session is one of this dialect.
pub fn is_update(session: Option<&Value>) -> bool {
    let has = |name| session.and_then(|session| session.get(name)).is_some();
    has("input_audio_params") || has("recognition_config")
}

/// A session of a client that is known to speak this dialect.
///
/// # Errors
/// The caller may not use the model.
pub fn opened(
    context: &Arc<Context>,
    request_id: &RequestId,
    protocol: Option<&'static str>,
) -> Result<Opened, Error> {
    let (settings, ask) = (settings(pcm(16_000)), ask(context, request_id, None, None, None)?);
    Ok(Opened { dialect: Box::new(Nim::new(context, request_id)), settings, ask, protocol })
}

fn settings(format: Format) -> Settings {
    let rules = Rules { silence: samples(800), ..Rules::default() };
    Settings { rules: Some(rules), max: samples(30_000), ..Settings::new(format) }
}

/// 16-bit samples of that rate.
fn pcm(rate: u32) -> Format {
    Format { sample: Sample::S16, rate }
}

fn ask(
    context: &Context,
    request_id: &RequestId,
    model: Option<&str>,
    language: Option<String>,
    prompt: Option<String>,
) -> Result<Ask, Error> {
    let route = match context.route(request_id, model, Capability::Stt) {
        Err(refused @ Error::Refused(_)) => return Err(refused),
        // NVIDIA's own names of models are not ours: those that are unknown stand for the first one.
        Err(_) => context.route(request_id, None, Capability::Stt)?,
        Ok(route) => route,
    };
    Ok(Ask { route, work: Transcribe { language, prompt, words: Need::Preferred, ..Transcribe::default() } })
}

/// One client's session.
pub struct Nim {
    context: Arc<Context>,
    request_id: RequestId,
    tag: String,
    session: Value,
    events: u64,
    /// The client sends a file: its bytes up to the samples.
    head: Option<Head>,
    /// The client has sent all.
    done: bool,
    /// The last text after that, until it is known to be the last.
    held: Option<Value>,
}

impl Nim {
    /// A session that was not updated yet.
    pub fn new(context: &Arc<Context>, request_id: &RequestId) -> Self {
        let tag = tag();
        Self {
            context: Arc::clone(context),
            request_id: request_id.clone(),
            session: default_session(&tag),
            tag,
            events: 0,
            head: None,
            done: false,
            held: None,
        }
    }

    fn send(&mut self, kind: &str, mut fields: Value, out: &mut Out) {
        self.events += 1;
        fields["event_id"] = json!(format!("event_{}", self.events));
        fields["type"] = json!(kind);
        out.json(&fields);
    }

    fn error(&mut self, message: &str, out: &mut Out) {
        let error = json!({"type": "invalid_request_error", "code": "invalid_value", "message": message, "param": null});
        self.send("error", json!({"error": error}), out);
    }

    fn update(&mut self, wanted: &Value, session: &mut Session, out: &mut Out) {
        let Some(wanted) = wanted.as_object() else { return self.error("session must be an object", out) };
        let mut now = self.session.clone();
        for (name, value) in wanted {
            match (now.get_mut(name), value) {
                (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
                _ => now[name] = value.clone(),
            }
        }
        if now.to_string().len() > HEAD_BYTES {
            return self.error("the session is too large", out);
        }
        let rate =
            now["input_audio_params"]["sample_rate_hz"].as_u64().and_then(|rate| u32::try_from(rate).ok());
        let Some(rate) = rate.filter(|rate| (8_000..=48_000).contains(rate)) else {
            return self.error("sample_rate_hz must be from 8000 to 48000", out);
        };
        if now["input_audio_params"]["num_channels"].as_u64().is_some_and(|channels| channels != 1) {
            return self.error("num_channels must be 1", out);
        }
        self.head = (now["input_audio_format"] == "none").then(Head::default);
        let text =
            |name: &str| now["input_audio_transcription"][name].as_str().filter(|text| !text.is_empty());
        let language = text("language").and_then(|name| language::requested(name).ok().flatten());
        let mut prompt: Vec<&str> = text("prompt").into_iter().collect();
        if now["word_boosting"]["enable_word_boosting"] == true {
            let lists = now["word_boosting"]["word_boosting_list"].as_array().into_iter().flatten();
            let phrases = lists.filter_map(|list| list["phrases"].as_array()).flatten();
            prompt.extend(phrases.filter_map(Value::as_str));
        }
        let prompt = (!prompt.is_empty()).then(|| prompt.join(", "));
        let ask = match ask(&self.context, &self.request_id, text("model"), language, prompt) {
            Ok(ask) => ask,
            Err(error) => return self.error(&error.to_string(), out),
        };
        let speakers = wants_speakers(&now);
        if speakers && !self.context.upstreams.tells_speakers(&ask.route) {
            return self.error("enable_speaker_diarization: no engine here tells speakers apart", out);
        }
        session.push(Input::Settings(Settings { speakers, ..settings(pcm(rate)) }));
        session.push(Input::Ask(ask));
        self.session = now;
        let shown = self.session.clone();
        self.send("transcription_session.updated", json!({"session": shown}), out);
    }

    fn append(&mut self, message: &Map<String, Value>, session: &mut Session, out: &mut Out) {
        let audio = message.get("audio").and_then(Value::as_str).and_then(base64);
        let Some(audio) = audio else { return self.error("audio must be a base64 string", out) };
        match self.samples(audio, session) {
            Ok(samples) => session.push(Input::Audio(samples)),
            Err(message) => self.error(message, out),
        }
        if message.get("runtime_config").is_some_and(|config| config["force_eou"] == "true") {
            session.push(Input::Commit);
        }
    }

    /// The samples of what came: past its header, where a file is sent.
    fn samples(&mut self, bytes: Bytes, session: &mut Session) -> Result<Bytes, &'static str> {
        let Some(head) = &mut self.head else { return Ok(bytes) };
        let samples = match head.push(&bytes)? {
            Begun::More => return Ok(Bytes::new()),
            Begun::Raw(samples) => samples,
            Begun::Wav(format, samples) => {
                let speakers = wants_speakers(&self.session);
                session.push(Input::Settings(Settings { speakers, ..settings(format) }));
                samples
            }
        };
        self.head = None;
        Ok(samples)
    }

    /// `speakers` are those of the words, from 0.
    fn completed(
        &self,
        segment: u64,
        start: f64,
        transcript: &Transcript,
        speakers: &[Option<usize>],
    ) -> Value {
        let word = |(at, word): (usize, &crate::transcript::Word)| {
            let millis = |seconds: f64| ((start + seconds) * 1000.0).round() as i64;
            json!({
                "word": word.text.trim(), "start_time": millis(word.start), "end_time": millis(word.end),
                "confidence": 1.0,
                "speaker_tag": speakers.get(at).copied().flatten().map_or(0, |speaker| speaker + 1),
            })
        };
        let wanted = self.session["recognition_config"]["enable_word_time_offsets"] == true
            || wants_speakers(&self.session);
        let timed = transcript.words.iter().enumerate();
        let timed = timed.filter(|(_, word)| wanted && word.start.is_finite() && word.end.is_finite());
        let words: Vec<Value> = timed.map(word).collect();
        json!({
            "item_id": format!("item_{}{segment:06}", self.tag), "content_index": 0, "transcript": transcript.text.trim(),
            "is_last_result": false, "words_info": {"words": words},
        })
    }

    fn release(&mut self, is_last: bool, out: &mut Out) {
        if let Some(mut held) = self.held.take() {
            held["is_last_result"] = json!(is_last);
            self.send("conversation.item.input_audio_transcription.completed", held, out);
        }
    }
}

fn wants_speakers(session: &Value) -> bool {
    session["speaker_diarization"]["enable_speaker_diarization"] == true
}

impl Dialect for Nim {
    fn opened(&mut self, out: &mut Out) {
        let conversation = json!({"id": format!("conv_{}", self.tag), "object": "realtime.conversation"});
        self.send("conversation.created", json!({"conversation": conversation}), out);
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        let Ok(Value::Object(message)) = serde_json::from_str(text) else {
            return self.error("the message is not a JSON object", out);
        };
        match message.get("type").and_then(Value::as_str).unwrap_or_default() {
            "transcription_session.update" => {
                self.update(message.get("session").unwrap_or(&Value::Null), session, out);
            }
            "input_audio_buffer.append" if !self.done => self.append(&message, session, out),
            "input_audio_buffer.append" => self.error("the audio has ended", out),
            // The end of an utterance is found in the audio.
            "input_audio_buffer.commit" => self.send("input_audio_buffer.committed", json!({}), out),
            "input_audio_buffer.clear" => session.push(Input::Clear),
            "input_audio_buffer.done" => {
                self.done = true;
                session.push(Input::End);
            }
            _ => self.error("unknown event type", out),
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        self.error("audio goes into input_audio_buffer.append", out);
    }

    fn event(&mut self, event: Event, _: &mut Session, out: &mut Out) {
        match event {
            Event::Partial(partial) => {
                let item = format!("item_{}{:06}", self.tag, partial.segment);
                let delta = json!({"item_id": item, "content_index": 0, "delta": partial.text()});
                self.send("conversation.item.input_audio_transcription.delta", delta, out);
            }
            Event::Final(last) => {
                self.release(false, out);
                let start = crate::stream::seconds(last.span.start);
                self.held =
                    Some(self.completed(last.segment, start, &last.transcript, &last.speakers_of_words()));
                if !self.done {
                    self.release(false, out);
                }
            }
            Event::Failed { segment, error, .. } => {
                let item = format!("item_{}{segment:06}", self.tag);
                let failed = json!({"item_id": item, "content_index": 0, "error": error.envelope()});
                self.send("conversation.item.input_audio_transcription.failed", failed, out);
            }
            Event::Done => {
                if self.held.is_none() {
                    self.held = Some(self.completed(u64::from(u32::MAX), 0.0, &Transcript::default(), &[]));
                }
                self.release(true, out);
            }
            Event::Cleared => self.send("input_audio_buffer.cleared", json!({}), out),
            Event::Started { .. }
            | Event::Committed { .. }
            | Event::Empty
            | Event::Speech(_)
            | Event::Spoken(_)
            | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        self.release(true, out);
        self.error(ending.message(), out);
        out.close(ending.code(), ending.message());
    }
}
