//! The realtime WebSocket of NeMo-Speech.cpp: a flat configuration, samples, and text that grows.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::super::listening::{Heard, Listening};
use super::super::realtime::{self, Close, Conversation, Received, upgrade};
use super::super::{Entry, Side, ms};
use crate::fault::origin::{Origin, Reply};
use crate::health::Readiness;
use crate::language;
use crate::pcm::{Raw, Stream};
use crate::work::transcribe::{Spoken, text};
use crate::work::{Refusal, Transcriber};

pub(in crate::protocol) static ENTRY: Entry = Entry {
    name: "nemo_speech_streaming",
    llm: None,
    stt: Some(Side::WebSocket { paths: &[PATH, ALIAS], router }),
    tts: None,
};

const PATH: &str = "/v1/realtime";
const ALIAS: &str = "/v1/audio/transcriptions/realtime";

fn router(stt: Arc<Transcriber>) -> Router {
    Router::new().route(PATH, get(converse)).route(ALIAS, get(converse)).with_state(stt)
}

#[allow(clippy::unused_async)] // a handler has to be
async fn converse(State(stt): State<Arc<Transcriber>>, request: Request) -> Response {
    match stt.core.readiness(std::time::Instant::now()) {
        Readiness::Ready | Readiness::Draining => {}
        other => return Refusal::NotReady(other).into_response(),
    }
    upgrade(request, move |conversation| run(stt, conversation))
}

/// What a session asks for.
struct Options {
    rate_hz: u32,
    language: Option<&'static str>,
    words: bool,
    speakers: bool,
}

/// Audio under way, until a commit.
struct Begun {
    listening: Listening,
    stream: Stream,
    /// The text of the utterance that runs, as far as it was sent.
    partial: String,
}

/// A session until its client leaves. A wrong message is answered by an error event and does not end it.
async fn run(stt: Arc<Transcriber>, mut conversation: Conversation) -> Close {
    let session =
        json!({ "input_audio_format": "pcm16", "sample_rate": 16_000, "model": stt.core.capability.model });
    conversation.send(json!({ "type": "session.created", "session": session })).await;
    let mut options = Options { rate_hz: 16_000, language: None, words: false, speakers: false };
    let mut begun = None;
    while let Some(received) = conversation.messages.recv().await {
        if let Err(refusal) = take(&stt, &mut conversation, &mut options, &mut begun, received).await {
            let error = json!({ "message": refusal.to_string(), "type": "invalid_request_error" });
            conversation.send(json!({ "type": "error", "error": error })).await;
        }
    }
    (1000, "")
}

async fn take(
    stt: &Arc<Transcriber>,
    conversation: &mut Conversation,
    options: &mut Options,
    begun: &mut Option<Begun>,
    received: Received,
) -> Result<(), Refusal> {
    let event = match received {
        Received::Binary(audio) => return append(stt, conversation, options, begun, &audio).await,
        Received::NotJson => return Err(Refusal::parameter("type", "invalid JSON")),
        Received::Event(event) => event,
    };
    match event["type"].as_str().unwrap_or_default() {
        "session.update" | "config" => {
            if begun.is_some() {
                let text = "session configuration cannot change after audio starts";
                return Err(Refusal::parameter("session", text));
            }
            let session = event.get("session").unwrap_or(&event);
            *options = configured(session, stt.core.capability.multilingual)?;
            conversation.send(json!({ "type": "session.updated", "session": session })).await;
        }
        "input_audio_buffer.append" => {
            let audio = realtime::audio(&event);
            let audio = audio.ok_or_else(|| Refusal::parameter("audio", "invalid base64"))?;
            append(stt, conversation, options, begun, &audio).await?;
        }
        "input_audio_buffer.commit" => {
            if let Some(Begun { mut listening, stream, .. }) = begun.take() {
                stream.finish(listening.samples());
                while let Some(heard) = listening.rest().await? {
                    conversation.send(completed(&heard, options)).await;
                }
            }
            conversation.send(json!({ "type": "input_audio_buffer.committed" })).await;
        }
        "input_audio_buffer.clear" | "response.cancel" => {
            *begun = None;
            conversation.send(json!({ "type": "input_audio_buffer.cleared" })).await;
        }
        other => {
            return Err(Refusal::parameter("type", format!("unsupported realtime event type: {other}")));
        }
    }
    Ok(())
}

fn configured(session: &Value, multilingual: bool) -> Result<Options, Refusal> {
    let rate_hz = session["sample_rate"].as_u64().unwrap_or(16_000);
    let rate_hz = u32::try_from(rate_hz).ok().filter(|rate| (8_000..=96_000).contains(rate));
    let wrong = || Refusal::parameter("sample_rate", "sample_rate must be between 8000 and 96000");
    let language = session["language"].as_str().filter(|language| !language.is_empty());
    let known = language.map(language::code);
    if known == Some(None) || (!multilingual && known.flatten().is_some_and(|code| code != "en")) {
        return Err(Refusal::parameter("language", "the model does not know this language"));
    }
    let flag = |name: &str| session[name] == true;
    Ok(Options {
        rate_hz: rate_hz.ok_or_else(wrong)?,
        language: known.flatten(),
        words: flag("word_timestamps") || flag("speaker_diarization"),
        speakers: flag("speaker_diarization"),
    })
}

async fn append(
    stt: &Arc<Transcriber>,
    conversation: &mut Conversation,
    options: &Options,
    begun: &mut Option<Begun>,
    audio: &[u8],
) -> Result<(), Refusal> {
    if audio.len() < 2 {
        return Ok(());
    }
    let begun = match begun {
        Some(begun) => begun,
        None => {
            let (cuts, origin) = (conversation.cuts.clone(), Origin::new(Reply::Streamed, &[]));
            let listening = Listening::new(stt.clone(), origin, cuts, options.language, options.speakers);
            let stream = Stream::new(Raw::Linear, options.rate_hz)?;
            begun.insert(Begun { listening, stream, partial: String::new() })
        }
    };
    begun.stream.push(audio, begun.listening.samples());
    while let Some(heard) = begun.listening.due(true).await? {
        if heard.ended {
            begun.partial.clear();
            conversation.send(completed(&heard, options)).await;
            continue;
        }
        let so_far = text(&heard.sentences.concat());
        let delta = so_far.strip_prefix(&*begun.partial).unwrap_or(&so_far).to_owned();
        begun.partial = so_far;
        let kind = "conversation.item.input_audio_transcription.delta";
        conversation
            .send(json!({ "type": kind, "delta": delta, "audio_processed": ms(heard.received_s) }))
            .await;
    }
    Ok(())
}

fn completed(heard: &Heard, options: &Options) -> Value {
    let all: Vec<Spoken> = heard.sentences.concat();
    let mut event = json!({
        "type": "conversation.item.input_audio_transcription.completed",
        "transcript": text(&all),
        "audio_processed": ms(heard.received_s),
    });
    if options.words {
        let word = |spoken: &Spoken| {
            let mut word = json!({
                "word": spoken.word.text,
                "start": ms(heard.offset_s + spoken.word.start_s),
                "end": ms(heard.offset_s + spoken.word.end_s),
                "confidence": ms(spoken.word.confidence),
            });
            if let Some(speaker) = spoken.speaker {
                word["speaker"] = (speaker + 1).into();
            }
            word
        };
        event["words"] = all.iter().map(word).collect();
    }
    event
}
