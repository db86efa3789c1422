//! Answers of a language model in the sessions of the bridge: words and speech as they are made, until they are cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use contract::Capability;

use super::turns::RATE;
use crate::api::Context;
use crate::api::live::say::say;
use crate::api::live::{Out, Reply as Frame, Work};
use crate::api::llm::spoken::{Piece, pieces};
use crate::api::llm::{answer, check};
use crate::api::speech::Speech;
use crate::audio::OutputFormat;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::Chat;

/// A step of an answer.
pub(super) enum Step {
    /// What its text grew by.
    Text(String),
    /// All of its text.
    Written(String),
    /// Samples, s16le of [`RATE`].
    Audio(Bytes),
    /// What went wrong; what can be said is said all the same.
    Failed(Error),
    /// Its end, and whether nothing went wrong.
    End(bool),
}

/// Has a conversation answered, and the answer spoken where an engine speaks.
///
/// # Errors
/// There is no language model, or no voice of that name.
pub(super) fn steps(
    (context, request_id): (&Arc<Context>, &RequestId),
    voice: Option<&str>,
    chat: Chat,
) -> Result<BoxStream<'static, Step>, Error> {
    check(context)?;
    let route = context.route(request_id, None, Capability::Llm)?;
    let voice = match context.config.get().has(Capability::Tts) {
        true => Some(speech(context, request_id, voice)?),
        false => None,
    };
    let (context, request_id) = (Arc::clone(context), request_id.clone());
    let begun = async move {
        let began = Instant::now();
        match answer(&context, &request_id, route, chat).await {
            Ok(answer) => shown(pieces(context, request_id, answer, voice, began)),
            Err(error) => stream::iter([Step::Failed(error), Step::End(false)]).boxed(),
        }
    };
    Ok(begun.flatten_stream().boxed())
}

/// How answers are spoken: as raw samples of the session's rate.
fn speech(context: &Context, request_id: &RequestId, voice: Option<&str>) -> Result<Speech, Error> {
    // Each sentence is charged when it is spoken.
    let (say, _) = say(context, request_id, (None, voice), String::new(), RATE)?;
    Ok(Speech {
        input: String::new(),
        voice: say.voice,
        language: say.language,
        format: OutputFormat::Pcm,
        sample_rate: RATE,
        speed: 1.0,
        dictionary: None,
        volume: 1.0,
        prompt: None,
        route: say.route,
    })
}

fn shown(pieces: BoxStream<'static, Piece>) -> BoxStream<'static, Step> {
    stream::unfold((pieces, String::new(), true), |(mut pieces, mut text, mut is_whole)| async move {
        let step = match pieces.next().await? {
            Piece::Text(more) => {
                text.push_str(&more);
                Step::Text(more)
            }
            Piece::Written => Step::Written(text.trim().to_owned()),
            Piece::Audio(audio) => Step::Audio(audio),
            Piece::Broken(error) | Piece::Mute(error) => {
                is_whole = false;
                Step::Failed(error)
            }
            Piece::End(_) => Step::End(is_whole),
        };
        Some((step, (pieces, text, is_whole)))
    })
    .boxed()
}

/// The answer that a session gives.
pub(super) struct Reply<T> {
    /// What it is for, and whether it has ended.
    active: Option<(T, Arc<AtomicBool>)>,
    /// What was written of answers that ended, or were cut.
    written: Arc<Mutex<Vec<(T, String)>>>,
}

impl<T> Default for Reply<T> {
    fn default() -> Self {
        Self { active: None, written: Arc::default() }
    }
}

impl<T: Clone + Send + 'static> Reply<T> {
    /// The frames of an answer, which is for `label`.
    pub(super) fn begin(
        &mut self,
        label: T,
        steps: BoxStream<'static, Step>,
        frames: impl Fn(Step) -> Vec<Value> + Send + 'static,
    ) -> Work {
        let ended = Arc::new(AtomicBool::new(false));
        self.active = Some((label.clone(), Arc::clone(&ended)));
        let mut noted = Noted { label, ended, text: String::new(), written: Arc::clone(&self.written) };
        let frames = steps.map(move |step| {
            noted.note(&step);
            stream::iter(frames(step).into_iter().map(Frame::Json))
        });
        frames.flatten().boxed()
    }

    /// Cuts the answer if it has not ended: model and voice are free at once. Returns what it was for.
    pub(super) fn cut(&mut self, out: &mut Out) -> Option<T> {
        let (label, _) = self.active.take().filter(|(_, ended)| !ended.load(Ordering::Acquire))?;
        out.end_work();
        Some(label)
    }

    /// What was answered since the last call.
    pub(super) fn written(&mut self) -> Vec<(T, String)> {
        std::mem::take(&mut *self.written.lock())
    }
}

/// Notes what comes of an answer, also when it is dropped early.
struct Noted<T: Clone> {
    label: T,
    ended: Arc<AtomicBool>,
    text: String,
    written: Arc<Mutex<Vec<(T, String)>>>,
}

impl<T: Clone> Noted<T> {
    fn note(&mut self, step: &Step) {
        match step {
            Step::Text(more) => self.text.push_str(more),
            Step::End(_) => self.ended.store(true, Ordering::Release),
            Step::Written(_) | Step::Audio(_) | Step::Failed(_) => {}
        }
    }
}

impl<T: Clone> Drop for Noted<T> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            self.written.lock().push((self.label.clone(), text.trim().to_owned()));
        }
    }
}
