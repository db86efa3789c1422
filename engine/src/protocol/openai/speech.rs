//! Speech from a JSON body.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::protocol::envelope::Envelope;
use crate::protocol::speech_body::SpeechBody;
use crate::work::{Refusal, Synthesizer};

/// Longest text, in characters.
const MAX_CHARACTERS: usize = 4_096;
/// Rate of all speech, in Hz.
const RATE_HZ: u32 = 24_000;

/// Unlike OpenAI's own server, it can answer with WAV and raw samples only.
pub(super) async fn speak(
    State(tts): State<Arc<Synthesizer>>,
    request: Request,
) -> Result<Response, Envelope> {
    let body = SpeechBody::read(request).await?;
    let format = body.format("mp3")?;
    let mut speech = body.speech(MAX_CHARACTERS, RATE_HZ, tts.core.capability.multilingual)?;
    let speed = body.speed.unwrap_or(1.0);
    if !(0.25..=4.0).contains(&speed) {
        return Err(Refusal::parameter("speed", format!("speed must be 0.25 to 4, not {speed}")).into());
    }
    speech.speaker.stretch /= speed as f32;
    Ok(tts.whole(speech, &body.origin()).await?.respond(|sound| format.render(&sound)))
}
