//! The HTTP dialect of a Magpie NIM: voices, whole and streamed synthesis.

mod render;
mod voices;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::app::Core;
use crate::fault::body::out_of_memory;
use crate::fault::mode::BadAudio;
use crate::ffi::{Error, Voices};
use crate::form::Form;
use crate::inference::{Ticket, admit, detail, finish};
use crate::lane::{Lane, ServiceClock};
use crate::wav;
use render::Speech;

/// Longest text in characters, as Magpie has it.
const MAX_CHARACTERS: usize = 2_000;
const DEFAULT_VOICE: &str = "Magpie-Multilingual.EN-US.Mia";
const DEFAULT_RATE_HZ: u32 = 22_050;

/// What the handlers share.
pub struct Magpie {
    /// What every dialect has.
    pub core: Arc<Core>,
    /// The lane in front of the voices.
    pub lane: Lane<Voices>,
}

/// The inference routes.
pub fn router(magpie: Magpie) -> Router {
    Router::new()
        .route("/v1/audio/list_voices", get(list_voices))
        .route("/v1/audio/synthesize", post(synthesize))
        .route("/v1/audio/synthesize_online", post(synthesize_online))
        .with_state(Arc::new(magpie))
}

/// `GET /v1/audio/list_voices`.
async fn list_voices() -> Json<Value> {
    Json(json!({ "en-US": { "voices": voices::names() } }))
}

/// `POST /v1/audio/synthesize`: one WAV file.
async fn synthesize(State(magpie): State<Arc<Magpie>>, request: Request) -> Response {
    whole(&magpie, request).await.unwrap_or_else(|refusal| refusal)
}

async fn whole(magpie: &Magpie, request: Request) -> Result<Response, Response> {
    let (speech, ticket) = accept(&magpie.core, request).await?;
    let Ticket { place, plan } = ticket;
    let (pace, slow, rate_hz) = (magpie.core.pace, plan.slow, speech.rate_hz);
    let job = move |voices: &mut Voices| -> Result<Vec<i16>, Error> {
        let mut samples = Vec::new();
        let mut clock = ServiceClock::start(pace, slow);
        speech.render(voices, &mut clock, &|| false, &mut |piece| samples.extend_from_slice(piece))?;
        Ok(samples)
    };
    let samples = magpie
        .lane
        .run(place, job)
        .await
        .map_err(|lost| internal(&lost))?
        .map_err(|error| internal(&error))?;
    let mut file = wav::encode(&samples, rate_hz);
    if plan.audio == Some(BadAudio::BadHeader) {
        file = lying_header(&file);
    }
    Ok(finish(([(header::CONTENT_TYPE, "audio/wav")], file).into_response(), plan.reset_after))
}

/// `POST /v1/audio/synthesize_online`: raw samples, little-endian, sent as they are made.
async fn synthesize_online(State(magpie): State<Arc<Magpie>>, request: Request) -> Response {
    online(&magpie, request).await.unwrap_or_else(|refusal| refusal)
}

async fn online(magpie: &Magpie, request: Request) -> Result<Response, Response> {
    let (speech, ticket) = accept(&magpie.core, request).await?;
    let Ticket { place, plan } = ticket;
    let (pace, slow) = (magpie.core.pace, plan.slow);
    let odd_byte = plan.audio == Some(BadAudio::BadHeader);
    // Never more than the audio of one text: the lane does not wait for a slow reader.
    let (sender, mut pieces) = mpsc::unbounded_channel::<Result<Bytes, Error>>();
    magpie.lane.submit(move |voices| {
        if sender.is_closed() {
            return;
        }
        if odd_byte {
            let _gone = sender.send(Ok(Bytes::from_static(&[0])));
        }
        let mut clock = ServiceClock::start(pace, slow);
        let made = speech.render(voices, &mut clock, &|| sender.is_closed(), &mut |piece| {
            let _gone = sender.send(Ok(wav::raw(piece)));
        });
        drop(place);
        if let Err(error) = made {
            let _gone = sender.send(Err(error));
        }
    });
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(internal(&error)),
        None => Bytes::new(),
    };
    let rest = futures::stream::poll_fn(move |context| pieces.poll_recv(context));
    let body = Body::from_stream(futures::stream::iter([Ok(first)]).chain(rest));
    let response = ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response();
    Ok(finish(response, plan.reset_after))
}

/// Reads and checks the form, then admits the inference.
async fn accept(core: &Core, request: Request) -> Result<(Speech, Ticket), Response> {
    let form = Form::read(request).await?;
    let mut speech = parse(&form).map_err(|text| detail(StatusCode::BAD_REQUEST, text))?;
    let ticket = admit(core, form.field("text").unwrap_or_default().as_bytes()).await?;
    if ticket.plan.oom_above_s.is_some_and(|limit| speech.expected_s() > limit) {
        if let Some(faults) = &core.faults {
            faults.count_oom();
        }
        return Err(out_of_memory().into_response());
    }
    speech.spoilt = ticket.plan.audio;
    Ok((speech, ticket))
}

fn parse(form: &Form) -> Result<Speech, String> {
    let text = form.field("text").unwrap_or_default().trim();
    let length = text.chars().count();
    if length == 0 || length > MAX_CHARACTERS {
        return Err(format!("text must have 1 to {MAX_CHARACTERS} characters, not {length}"));
    }
    let language = form.field("language").unwrap_or("en-US");
    if !["en-us", "en"].contains(&language.to_lowercase().as_str()) {
        return Err(format!("language '{language}' is not supported: use en-US"));
    }
    let name = form.field("voice").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_VOICE);
    let Some((voice, stretch)) = voices::find(name) else {
        return Err(format!("voice '{name}' is not known"));
    };
    let encoding = form.field("encoding").unwrap_or("LINEAR_PCM");
    if encoding != "LINEAR_PCM" {
        return Err(format!("encoding '{encoding}' is not supported: use LINEAR_PCM"));
    }
    let rate_hz = match form.field("sample_rate_hz") {
        None => DEFAULT_RATE_HZ,
        Some(rate) => rate
            .parse()
            .ok()
            .filter(|rate| (8_000..=48_000).contains(rate))
            .ok_or_else(|| format!("sample_rate_hz must be 8000 to 48000, not '{rate}'"))?,
    };
    Ok(Speech { text: text.to_owned(), voice, stretch, rate_hz, spoilt: None })
}

fn internal(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "synthesis failed");
    detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// F15: a header that claims twice the samples.
fn lying_header(file: &Bytes) -> Bytes {
    let mut lying = BytesMut::from(file.as_ref());
    let claimed = u32::try_from((file.len() - wav::HEADER_BYTES) * 2).unwrap_or(u32::MAX);
    lying[wav::HEADER_BYTES - 4..wav::HEADER_BYTES].copy_from_slice(&claimed.to_le_bytes());
    lying.freeze()
}
