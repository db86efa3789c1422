//! The `transcribe` subcommand.

pub mod bars;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method, Response, StatusCode};
use tokio_util::io::ReaderStream;

use crate::args::{Format, Transcribe};
use crate::client::{Client, Tries};
use crate::error::Error;
use crate::files::{self, Task};
use crate::job::Job;
use bars::Bars;
use upload::{Source, Upload};

/// From this size on the gateway is asked to work in the background.
const LARGE_BYTES: u64 = 8 << 20;

/// Writes down all files. One that fails does not end the others.
///
/// # Errors
/// When a name is no file, or a file failed.
pub async fn run(client: &Client, order: &Transcribe, quiet: bool) -> Result<(), Error> {
    let files = files::expand(&order.files)?;
    let tasks = files::tasks(files, order.out.as_deref(), order.format)?;
    let bars = Bars::new(quiet);
    let is_left = |task: &Task| order.force || task.target.as_ref().is_none_or(|target| !target.exists());
    let (left, done): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(is_left);
    if !done.is_empty() && !quiet {
        bars.say(&format!("{} files are written down already (--force does it again)", done.len()));
    }
    let all = left.len();
    let each = left.iter().map(|task| one(client, order, task, &bars));
    let ended: Vec<Result<(), Error>> =
        stream::iter(each).buffer_unordered(usize::from(order.parallel)).collect().await;
    let mut errors: Vec<Error> = ended.into_iter().filter_map(Result::err).collect();
    match (errors.len(), all) {
        (0, _) => Ok(()),
        (1, 1) => Err(errors.remove(0)),
        // What another try may mend is said only where it may mend all.
        (failed, all) => {
            Err(Error::Some { failed, all, code: errors.iter().map(Error::exit_code).min().unwrap_or(1) })
        }
    }
}

async fn one(client: &Client, order: &Transcribe, task: &Task, bars: &Bars) -> Result<(), Error> {
    let name = task.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar = bars.add(&name);
    let written = written(client, order, &task.source, &bar).await;
    bar.finish_and_clear();
    let said = match (written, &task.target) {
        (Ok(text), Some(target)) => {
            files::write(target, text.as_bytes()).map(|()| target.display().to_string())
        }
        (Ok(text), None) => return files::print(&text),
        (Err(error), _) => Err(error),
    };
    // Among several files it matters which one this was.
    if task.target.is_some() {
        match &said {
            Ok(target) => bars.say(target),
            Err(error) => bars.say(&format!("{}: {error}", task.source.display())),
        }
    }
    said.map(drop)
}

/// The transcript of a file.
async fn written(
    client: &Client,
    order: &Transcribe,
    source: &Path,
    bar: &ProgressBar,
) -> Result<String, Error> {
    let size = std::fs::metadata(source).map_err(|error| unreadable(source, error))?.len();
    let asked = fields(order);
    let in_background = order.job || size >= LARGE_BYTES;
    let fingerprint = in_background.then(|| files::fingerprint(source, &asked)).transpose()?;
    let source = Source { path: source, size, fingerprint: fingerprint.as_deref(), bar };
    let upload = match in_background {
        true => Upload::send(client, &source).await?,
        false => None,
    };
    let text = heard(client, &source, &asked, upload.as_ref()).await;
    // Until the job has ended the same command finds it by the upload, without sending the file again.
    if let Some(upload) = upload.filter(|_| text.as_ref().err().is_none_or(|error| !error.is_temporary())) {
        upload.forget(client).await;
    }
    let text = text?;
    if order.speakers && order.format == Format::Txt {
        return lines(&text).map_err(|error| client.unreadable("a transcription", &error));
    }
    Ok(text)
}

/// What the gateway makes of a file that is sent with the request, or of one that it has.
async fn heard(
    client: &Client,
    source: &Source<'_>,
    asked: &[(&'static str, String)],
    upload: Option<&Upload>,
) -> Result<String, Error> {
    let mut tries = Tries::default();
    let response = loop {
        let mut form = Form::new();
        for (name, value) in asked {
            form = form.text((*name).to_owned(), value.clone());
        }
        form = match upload {
            Some(upload) => form.text("upload_id", upload.id().to_owned()),
            None => form.part("file", part(source.path, source.size, source.bar).await?),
        };
        let mut request = client.request(Method::POST, "/v1/audio/transcriptions").multipart(form);
        if let Some(fingerprint) = source.fingerprint {
            // A gateway without jobs does not mind, and answers with the transcript.
            request = request.header("prefer", "respond-async").header("idempotency-key", fingerprint);
        }
        match client.send(request).await {
            Ok(response) => break response,
            Err(error) => tries.again(error).await?,
        }
    };
    transcript(client, response, source.bar).await
}

/// What a response has, or the job that it tells of will have.
async fn transcript(client: &Client, response: Response, bar: &ProgressBar) -> Result<String, Error> {
    if response.status() != StatusCode::ACCEPTED {
        return client.text(response).await;
    }
    let job: Job = client.read("a transcription in the background", response).await?;
    let job = job.ended(client, |job| bars::job(bar, job)).await?;
    let response = client.call(Method::GET, &format!("/v1/audio/jobs/{}/result", job.id)).await?;
    client.text(response).await
}

/// What is asked of the gateway beside the file.
fn fields(order: &Transcribe) -> Vec<(&'static str, String)> {
    let format = match (order.format, order.speakers) {
        (Format::Txt, false) => "text",
        (Format::Txt, true) => "diarized_json",
        (Format::Srt, _) => "srt",
        (Format::Vtt, _) => "vtt",
        (Format::Json, _) => "verbose_json",
    };
    let mut fields = vec![("response_format", format.to_owned())];
    if order.format == Format::Json {
        fields.extend(["word", "segment"].map(|times| ("timestamp_granularities[]", times.to_owned())));
    }
    if order.speakers {
        fields.push(("diarize", "true".to_owned()));
    }
    let optional = [("model", &order.model), ("language", &order.language), ("prompt", &order.prompt)];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    fields
}

/// A file that is read while it is sent.
async fn part(source: &Path, size: u64, bar: &ProgressBar) -> Result<Part, Error> {
    let file = tokio::fs::File::open(source).await.map_err(|error| unreadable(source, error))?;
    let (bar, sent) = (bar.clone(), Arc::new(AtomicU64::new(0)));
    let counted = ReaderStream::with_capacity(file, 1 << 16).inspect_ok(move |block| {
        let sent = sent.fetch_add(block.len() as u64, Ordering::Relaxed) + block.len() as u64;
        bars::upload(&bar, sent, size);
    });
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Part::stream_with_length(Body::wrap_stream(counted), size).file_name(name))
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

/// A diarized transcript as lines `A: what was said`, one for each turn.
fn lines(diarized: &str) -> Result<String, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Diarized {
        segments: Vec<Segment>,
    }
    #[derive(serde::Deserialize)]
    struct Segment {
        speaker: String,
        text: String,
    }
    let read: Diarized = serde_json::from_str(diarized)?;
    let mut lines: Vec<(String, String)> = Vec::new();
    for segment in read.segments {
        match lines.last_mut().filter(|(speaker, _)| *speaker == segment.speaker) {
            Some((_, text)) => {
                text.push(' ');
                text.push_str(segment.text.trim());
            }
            None => lines.push((segment.speaker, segment.text.trim().to_owned())),
        }
    }
    Ok(lines.iter().map(|(speaker, text)| format!("{speaker}: {text}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_line() {
        let segments = r#"{"segments": [{"speaker": "A", "text": "Hello."}, {"speaker": "A", "text": " How are you?"},
            {"speaker": "B", "text": "Well."}]}"#;
        assert_eq!(lines(segments).unwrap(), "A: Hello. How are you?\nB: Well.\n");
        assert!(lines("{}").is_err());
    }
}
