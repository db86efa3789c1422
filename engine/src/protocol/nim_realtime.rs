//! The realtime WebSocket of NVIDIA's recognition NIM, in front of Riva's recognition.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listening::{Heard, Listening};
use super::realtime::{self, Close, Conversation, Received, upgrade};
use super::riva::{Intake, Options};
use super::{Entry, Side};
use crate::fault::origin::{Origin, Reply};
use crate::grpc::messages::nvidia::riva::AudioEncoding;
use crate::grpc::messages::nvidia::riva::asr::{RecognitionConfig, SpeakerDiarizationConfig};
use crate::health::Readiness;
use crate::work::transcribe::{Spoken, text};
use crate::work::{Refusal, Transcriber};

pub(super) static ENTRY: Entry = Entry {
    name: "nim_realtime",
    llm: None,
    stt: Some(Side::WebSocket { paths: &[PATH, SESSIONS], router }),
    tts: None,
};

const PATH: &str = "/v1/realtime";
const SESSIONS: &str = "/v1/realtime/transcription_sessions";

fn router(stt: Arc<Transcriber>) -> Router {
    Router::new().route(PATH, get(converse)).route(SESSIONS, post(async || Json(session()))).with_state(stt)
}

/// What a session is before it is updated.
fn session() -> Value {
    json!({
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "modalities": ["text"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": { "language": "en-US", "model": "", "prompt": "" },
        "input_audio_params": { "sample_rate_hz": 16_000, "num_channels": 1 },
        "recognition_config": {
            "max_alternatives": 1,
            "enable_automatic_punctuation": false,
            "enable_word_time_offsets": false,
            "enable_profanity_filter": false,
            "enable_verbatim_transcripts": false,
        },
        "speaker_diarization": { "enable_speaker_diarization": false, "max_speaker_count": 8 },
        "word_boosting": { "enable_word_boosting": false, "word_boosting_list": [] },
        "endpointing_config": {
            "start_history": 0, "start_threshold": 0, "stop_history": 0, "stop_threshold": 0,
            "stop_history_eou": 0, "stop_threshold_eou": 0,
        },
        "client_secret": null,
    })
}

#[derive(Deserialize)]
struct Asked {
    intent: Option<String>,
}

#[allow(clippy::unused_async)] // a handler has to be
async fn converse(
    State(stt): State<Arc<Transcriber>>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Response {
    match stt.core.readiness(std::time::Instant::now()) {
        Readiness::Ready | Readiness::Draining => {}
        other => return Refusal::NotReady(other).into_response(),
    }
    if asked.intent.as_deref() != Some("transcription") {
        return upgrade(request, async |_| (1008, "intent must be transcription"));
    }
    upgrade(request, move |conversation| run(stt, conversation))
}

/// A session to its end. What a client does wrong ends it, as a fault of the engine does.
async fn run(stt: Arc<Transcriber>, mut conversation: Conversation) -> Close {
    let created = json!({ "type": "conversation.created", "conversation": { "id": "conv_1", "object": "realtime.conversation" } });
    conversation.send(created).await;
    match listen(stt, &mut conversation).await {
        Ok(()) => (1000, ""),
        Err(refusal) => {
            let wrong = refusal.status().is_client_error();
            let kind = if wrong { "invalid_request_error" } else { "server_error" };
            let error =
                json!({ "type": kind, "code": refusal.status().as_u16(), "message": refusal.to_string() });
            conversation.send(json!({ "type": "error", "error": error })).await;
            if wrong { (1008, "invalid request") } else { (1011, "internal error") }
        }
    }
}

async fn listen(stt: Arc<Transcriber>, conversation: &mut Conversation) -> Result<(), Refusal> {
    let mut configured = session();
    let mut begun: Option<(Listening, Intake, Options)> = None;
    while let Some(received) = conversation.messages.recv().await {
        let Received::Event(event) = received else {
            return Err(Refusal::parameter("type", "events are JSON objects in text messages"));
        };
        match event["type"].as_str().unwrap_or_default() {
            "transcription_session.update" if begun.is_none() => {
                merge(&mut configured, &event["session"]);
                Options::check(&recognition(&configured), &stt.core.capability)?;
                conversation
                    .send(json!({ "type": "transcription_session.updated", "session": configured }))
                    .await;
            }
            "transcription_session.update" => {
                return Err(Refusal::parameter("type", "the session cannot be updated once audio has come"));
            }
            "input_audio_buffer.append" => {
                let audio = realtime::audio(&event);
                let audio = audio.ok_or_else(|| Refusal::parameter("audio", "audio is not base64"))?;
                if begun.is_none() {
                    begun = Some(begin(&stt, conversation, &configured)?);
                }
                let Some((listening, intake, options)) = &mut begun else { continue };
                intake.push(Bytes::from(audio), listening.samples())?;
                while let Some(heard) = listening.due(true).await? {
                    conversation.send(result(&heard, options, false)).await;
                }
            }
            // Only the end flushes.
            "input_audio_buffer.commit" => {}
            "input_audio_buffer.done" => return finish(conversation, begun).await,
            other => {
                let text = format!("event type '{other}' is not known");
                return Err(Refusal::parameter("type", text));
            }
        }
    }
    Ok(())
}

fn begin(
    stt: &Arc<Transcriber>,
    conversation: &Conversation,
    configured: &Value,
) -> Result<(Listening, Intake, Options), Refusal> {
    let recognition = recognition(configured);
    let options = Options::check(&recognition, &stt.core.capability)?;
    options.raw_rate_hz()?;
    let origin = Origin::new(Reply::Streamed, &[("model", Some(&recognition.model))]);
    let (cuts, speakers) = (conversation.cuts.clone(), options.speakers.is_some());
    let listening = Listening::new(stt.clone(), origin, cuts, options.language, speakers);
    let intake = Intake::new(&options);
    Ok((listening, intake, options))
}

/// Hears the rest and sends the last result, which is empty when nothing was said.
async fn finish(
    conversation: &mut Conversation,
    begun: Option<(Listening, Intake, Options)>,
) -> Result<(), Refusal> {
    let mut last = None;
    if let Some((mut listening, intake, options)) = begun {
        intake.finish(listening.samples())?;
        while let Some(heard) = listening.rest().await? {
            if let Some(before) = last.replace(result(&heard, &options, true)) {
                let mut before = before;
                before["is_last_result"] = false.into();
                conversation.send(before).await;
            }
        }
    }
    let nothing = json!({
        "type": "conversation.item.input_audio_transcription.completed",
        "transcript": "", "is_last_result": true, "words_info": { "words": [] },
    });
    conversation.send(last.unwrap_or(nothing)).await;
    Ok(())
}

/// A configuration as Riva has it.
fn recognition(session: &Value) -> RecognitionConfig {
    let (config, speakers) = (&session["recognition_config"], &session["speaker_diarization"]);
    let number = |value: &Value| value.as_i64().and_then(|value| i32::try_from(value).ok()).unwrap_or(-1);
    let transcription = &session["input_audio_transcription"];
    RecognitionConfig {
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hertz: number(&session["input_audio_params"]["sample_rate_hz"]),
        audio_channel_count: number(&session["input_audio_params"]["num_channels"]),
        language_code: transcription["language"].as_str().unwrap_or_default().to_owned(),
        model: transcription["model"].as_str().unwrap_or_default().to_owned(),
        enable_word_time_offsets: config["enable_word_time_offsets"] == true,
        diarization_config: Some(SpeakerDiarizationConfig {
            enable_speaker_diarization: speakers["enable_speaker_diarization"] == true,
            max_speaker_count: number(&speakers["max_speaker_count"]),
        }),
        ..RecognitionConfig::default()
    }
}

/// The event for what was heard: a replaceable text, or a final one with its words.
fn result(heard: &Heard, options: &Options, is_last: bool) -> Value {
    let all: Vec<Spoken> = heard.sentences.concat();
    if !heard.ended {
        return json!({ "type": "conversation.item.input_audio_transcription.delta", "delta": text(&all) });
    }
    let word = |spoken: &Spoken| {
        json!({
            "word": spoken.word.text,
            "start_time": milliseconds(heard.offset_s + spoken.word.start_s),
            "end_time": milliseconds(heard.offset_s + spoken.word.end_s),
            "confidence": spoken.word.confidence,
            "speaker_tag": options.tag(spoken.speaker),
        })
    };
    let words: Vec<Value> = if options.words { all.iter().map(word).collect() } else { Vec::new() };
    json!({
        "type": "conversation.item.input_audio_transcription.completed",
        "transcript": format!("{} ", text(&all)),
        "is_last_result": is_last,
        "words_info": { "words": words },
    })
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// Lays an update over a session, object into object.
fn merge(session: &mut Value, update: &Value) {
    match (session, update) {
        (Value::Object(session), Value::Object(update)) => {
            for (name, value) in update {
                merge(session.entry(name).or_insert(Value::Null), value);
            }
        }
        (session, update) => session.clone_from(update),
    }
}
