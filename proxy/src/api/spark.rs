//! `POST /api/audio/transcribe-with-speakers`: words and speaker turns of one upload, merged, in spark-control's shape.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use contract::Capability;

use crate::api::form::{Fields, Purpose, Upload};
use crate::api::{Context, RequestId};
use crate::error::Error;
use crate::job::input::InputHash;
use crate::protocol;
use crate::protocol::old_parakeet::{self as parakeet, Diarization, Options, Transcription};
use crate::transcript::{self, Params, Rule};
use crate::upstream::Outgoing;

/// Query of the call.
#[derive(Debug, Deserialize)]
pub struct Choice {
    /// How words find their speaker.
    #[serde(default)]
    merge: MergeRule,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MergeRule {
    #[default]
    Continuity,
    Legacy,
}

/// The reply.
#[derive(Debug, Serialize)]
pub struct Reply {
    duration: f64,
    language: String,
    speakers_detected: Vec<String>,
    segments: Vec<Segment>,
    models: Models,
}

#[derive(Debug, Serialize)]
struct Segment {
    start_ms: i64,
    end_ms: i64,
    speaker: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Models {
    transcription: String,
    diarization: String,
}

/// Takes the upload, has it transcribed and diarized, merges the two.
pub async fn transcribe_with_speakers(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    choice: Result<Query<Choice>, QueryRejection>,
    request: Request,
) -> Result<Json<Reply>, Error> {
    let Query(choice) = choice.map_err(|_| Error::param("merge", "merge must be continuity or legacy"))?;
    let purpose = Speakers { context: context.clone() };
    let opened = Upload::open(request, context.body_limit(), purpose).await?;
    let hash = opened.hash.clone();
    // One form serves both calls: the diarizer has no fields and takes no notice of them.
    let form = context.form(opened);
    let route = context.default_route(Capability::Stt);
    let words = context.outgoing(route.clone(), parakeet::TRANSCRIBE, form.clone(), &request_id);
    let turns = context.outgoing(route, parakeet::DIARIZE, form, &request_id);
    let (words, turns) = context.ask_both(&words, turns).await?;
    let reply_bytes = words.len() + turns.len();
    let reply = context.digest(reply_bytes, move || merge(&words, &turns, choice.merge)).await?;
    context.served(&hash);
    context.metrics.audio_seconds(Capability::Stt).inc_by(reply.duration);
    Ok(Json(reply))
}

impl Context {
    /// Sends both requests: the second after the first to the same engine, or, once the upload is complete, beside it if
    /// another engine is free.
    async fn ask_both(&self, first: &Outgoing, mut second: Outgoing) -> Result<(Bytes, Bytes), Error> {
        let asked = self.ask(first);
        tokio::pin!(asked);
        let replied = tokio::select! {
            reply = &mut asked => Some(reply?),
            _ = first.body.complete() => None,
        };
        let (reply, engine) = match replied {
            Some(reply) => reply,
            None if self.upstreams.free(&first.route) > 0 => {
                let beside = async { Ok(self.ask(&second).await.ok()) };
                match tokio::try_join!(asked, beside)? {
                    ((reply, _), Some((beside, _))) => return Ok((reply, beside)),
                    // The other engine was not free after all.
                    (reply, None) => reply,
                }
            }
            None => asked.await?,
        };
        if !second.body.is_replayable() {
            let retry_after = self.config.get().gateway.retry_after.min;
            let reason = "no room to keep the upload for its second pass";
            return Err(Error::NoEngine { capability: second.route.capability, reason, retry_after });
        }
        second.prefer = Some(engine);
        let (other, _) = self.ask(&second).await?;
        Ok((reply, other))
    }
}

fn merge(words: &[u8], turns: &[u8], rule: MergeRule) -> Result<Reply, protocol::Error> {
    let Transcription { mut words, language, duration, model, .. } = Transcription::parse(words)?;
    transcript::repair(&mut words);
    let turns = Diarization::parse(turns)?;
    let rule = match rule {
        MergeRule::Continuity => Rule::Continuity,
        MergeRule::Legacy => Rule::Legacy,
    };
    let params = Params { rule, language: language.as_deref() };
    let merged = transcript::merge(&words, &turns.turns, &params);
    let segments = merged.blocks.into_iter().map(|block| Segment {
        start_ms: block.start_ms,
        end_ms: block.end_ms,
        speaker: block.speaker,
        text: block.text,
    });
    let known = |seconds: Option<f64>| seconds.filter(|seconds| *seconds != 0.0);
    Ok(Reply {
        duration: known(duration).or_else(|| known(turns.duration)).unwrap_or(0.0),
        speakers_detected: turns.speakers,
        segments: segments.collect(),
        models: Models {
            transcription: model.unwrap_or_else(|| "parakeet".into()),
            diarization: turns.model.unwrap_or_else(|| "sortformer".into()),
        },
        language: language.unwrap_or_else(|| "en".into()),
    })
}

/// The form has a file and nothing else that counts.
struct Speakers {
    context: Arc<Context>,
}

impl Purpose for Speakers {
    fn check(&self, _: &Fields) -> Result<(), Error> {
        Ok(())
    }

    fn finish(&mut self, _: &Fields, hash: &str) -> Result<Vec<(&'static str, String)>, Error> {
        if self.context.upstreams.is_poison(hash.parse().unwrap_or(InputHash(0))) {
            return Err(Error::PoisonInput);
        }
        Ok(Options { timestamps: true, ..Options::default() }.fields())
    }
}
