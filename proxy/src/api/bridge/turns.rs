//! What both forms of the bridge share: how turns end, and the speech that answers them.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::api::Context;
use crate::api::live::say::say;
use crate::audio::Sample;
use crate::edge::{Charge, RequestId};
use crate::error::Error;
use crate::stream::{Format, Rules, Say, Session, Settings, samples};

/// Samples per second, in and out.
pub(super) const RATE: u32 = 24_000;
/// Scores of speech for WebRTC's four degrees of aggressiveness.
const THRESHOLDS: [f32; 4] = [0.35, 0.45, 0.5, 0.65];
const AGGRESSIVENESS: u64 = 2;
/// What begins a turn, ends it, is kept before it, and is the most of it, milliseconds.
const START: u64 = 80;
const END: u64 = 300;
const PAD: u64 = 120;
const MAX: u64 = 10_000;
/// Longest turn that the client ends, milliseconds.
const MAX_COMMITTED: u64 = 120_000;
/// Texts that wait for the one that is spoken.
const MAX_WAITING: usize = 16;

/// The settings of a session whose turns end by voice, or by the client alone.
pub(super) fn settings(by_voice: bool) -> Settings {
    let base = Settings::new(Format { sample: Sample::S16, rate: RATE });
    if !by_voice {
        return Settings { rules: None, max: samples(MAX_COMMITTED), ..base };
    }
    let rules = Rules { threshold: 0.5, start: samples(START), silence: samples(END), pad: samples(PAD) };
    Settings { rules: Some(rules), max: samples(MAX), ..base }
}

/// What a `turn_detection` asks for; without one the client ends its turns.
///
/// # Errors
/// A value that cannot be.
pub(super) fn detection(wanted: Option<&Value>) -> Result<Settings, Error> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_null()) else { return Ok(settings(false)) };
    let wrong = |message: String| Error::param("turn_detection", message);
    let Some(wanted) = wanted.as_object() else {
        return Err(wrong("turn_detection must be an object".into()));
    };
    match wanted.get("type").and_then(Value::as_str) {
        Some("server_vad") | None => {}
        Some("none") => return Ok(settings(false)),
        Some(_) => return Err(wrong("turn_detection.type must be server_vad".into())),
    }
    let number = |name: &str, default: u64, range: std::ops::RangeInclusive<u64>| match wanted.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
            wrong(format!("{name} must be a whole number from {} to {}", range.start(), range.end()))
        }),
    };
    let degree = number("aggressiveness", AGGRESSIVENESS, 0..=3)?;
    let rules = Rules {
        threshold: usize::try_from(degree).ok().and_then(|at| THRESHOLDS.get(at)).copied().unwrap_or(0.5),
        start: samples(number("start_ms", START, 16..=2_000)?),
        silence: samples(number("end_ms", END, 100..=10_000)?),
        pad: samples(number("pad_ms", PAD, 0..=5_000)?),
    };
    let max = samples(number("max_ms", MAX, 500..=120_000)?);
    Ok(Settings { rules: Some(rules), max, ..settings(true) })
}

/// The voice that a session names, if it does.
pub(super) fn voice(session: &Map<String, Value>) -> Option<String> {
    session.get("voice").and_then(Value::as_str).filter(|voice| !voice.is_empty()).map(str::to_owned)
}

/// Texts to speak, one at a time.
pub(super) struct Speech<T> {
    active: Option<(T, Option<Charge>)>,
    waiting: VecDeque<(T, Say, Option<Charge>)>,
}

impl<T: Clone> Speech<T> {
    pub(super) fn new() -> Self {
        Self { active: None, waiting: VecDeque::new() }
    }

    /// Has a text spoken, now or after those before it. `label` is what it is for.
    ///
    /// # Errors
    /// No voice of that name; the caller's quota; too many wait.
    pub(super) fn push(
        &mut self,
        (context, request_id): (&Context, &RequestId),
        voice: Option<&str>,
        text: String,
        label: T,
        session: &mut Session,
    ) -> Result<(), Error> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(Error::param("text", "too many texts wait to be spoken"));
        }
        let (say, charge) = say(context, request_id, (None, voice), text, RATE)?;
        self.waiting.push_back((label, say, charge));
        self.next(session);
        Ok(())
    }

    /// What the text is for that is spoken.
    pub(super) fn heard(&mut self) -> Option<T> {
        let (label, charge) = self.active.as_mut()?;
        if let Some(charge) = charge.take() {
            charge.settle_all();
        }
        Some(label.clone())
    }

    /// The text that was spoken has ended; the next one begins. Returns what it was for.
    pub(super) fn ended(&mut self, session: &mut Session) -> Option<T> {
        let ended = self.active.take().map(|(label, _)| label);
        self.next(session);
        ended
    }

    /// Stops speaking, and drops what waits: the engine is free at once. Returns what the text was for.
    pub(super) fn stop(&mut self, session: &mut Session) -> Option<T> {
        session.hush();
        self.waiting.clear();
        self.active.take().map(|(label, _)| label)
    }

    fn next(&mut self, session: &mut Session) {
        if self.active.is_none()
            && let Some((label, say, charge)) = self.waiting.pop_front()
        {
            session.say(say);
            self.active = Some((label, charge));
        }
    }
}
