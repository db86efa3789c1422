//! A text to speak in a session, by the names that a client gives.

use contract::Capability;

use crate::api::{Context, catalog};
use crate::edge::{Charge, RequestId};
use crate::error::{Error, Unit};
use crate::job::voice::VoiceName;
use crate::stream::Say;

/// What to say at that rate, and what it costs its caller. A voice that is not named is the model's, if a voice is named as
/// model, else the default.
///
/// # Errors
/// There is no model or voice of that name; the caller's quota.
pub fn say(
    context: &Context,
    request_id: &RequestId,
    (model, voice): (Option<&str>, Option<&str>),
    text: String,
    sample_rate: u32,
) -> Result<(Say, Option<Charge>), Error> {
    let (known, voices) = (context.config.get(), context.voices.known());
    let route = context.route(request_id, model, Capability::Tts)?;
    let full = match voice {
        None => {
            let named = model.filter(|model| VoiceName::parse(model).is_some());
            named.unwrap_or(&known.gateway.default_voice).to_owned()
        }
        Some(name) => match catalog::voice(&known, &voices, name) {
            Some(full) => full,
            None if voices.is_empty() && VoiceName::parse(name).is_some() => name.to_owned(),
            None => {
                let name: String = name.chars().take(128).collect();
                let message = format!("no voice '{name}'; see GET /v1/audio/voices");
                return Err(Error::param("session.audio.output.voice", message));
            }
        },
    };
    let language = VoiceName::parse(&full).map_or_else(|| "en-US".into(), |name| name.language());
    let charge = request_id.charge_at_once(Unit::Characters, text.chars().count() as f64)?;
    Ok((Say { text, voice: full, language, sample_rate, route }, charge))
}
