//! What a transcription job does: as the request would have done, behind interactive work.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use trace::Kind;

use crate::api::form::{Fields, Form};
use crate::api::openai::form::Parameters;
use crate::api::openai::transcription;
use crate::api::{Context, Owner};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::{Need, Work};
use crate::jobs::{Outcome, Progress, Record, Worker};
use crate::transcript::repair;
use crate::upstream::{Listener, Part, Served};

/// Transcribes.
pub struct Transcriber {
    /// The way to the engines.
    pub context: Arc<Context>,
}

impl Worker for Transcriber {
    fn run(
        &self,
        job: Record,
        upload: PathBuf,
        progress: Progress,
    ) -> BoxFuture<'static, Result<Outcome, Error>> {
        transcribe(Arc::clone(&self.context), job, upload, progress).boxed()
    }
}

/// Hears of pieces for the job's progress.
struct Heard(Progress);

impl Listener for Heard {
    fn heard(&self, part: Part) {
        self.0.heard(part.seconds);
    }
}

async fn transcribe(
    context: Arc<Context>,
    record: Record,
    upload: PathBuf,
    progress: Progress,
) -> Result<Outcome, Error> {
    let fields = Fields::of_pairs(record.fields.clone());
    let budget = context.upstreams.budget();
    let form = Form::of_file(upload, &record.filename, fields.clone(), budget).await?;
    let span = context.tracer.begin().span("background job", Kind::Internal);
    let id = HeaderValue::try_from(record.id.as_str()).unwrap_or(HeaderValue::from_static("job"));
    let request_id = RequestId::of(id, span.trace().clone());
    let parameters = Parameters::read(&fields)?;
    let references = parameters.known.references(&context, Owner::Digest(&record.owner)).await?;
    let mut job = transcription::job(&context, &form, &fields, &parameters, &request_id)?;
    if let Work::Transcribe(work) = &mut job.work {
        // The result may be asked for in any format.
        work.words = work.words.max(Need::Preferred);
    }
    (job.background, job.may_wait) = (true, true);
    job.long.listener = Some(Arc::new(Heard(progress)));
    let Served { value: (mut transcript, turns), engine, hedged } =
        transcription::hear(&context, &job, &references).await?;
    // Times that are no numbers cannot be kept.
    repair(&mut transcript.words);
    let seconds = transcript.duration.unwrap_or(form.playing.seconds);
    context.served(&form, &request_id, (&engine, hedged), None, seconds);
    Ok(Outcome { transcript, turns, playing: (form.playing.seconds, form.playing.exact) })
}
