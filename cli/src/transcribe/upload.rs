//! A file that goes to the gateway in parts, from where the last connection or run left off (tus 1.0.0).

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use reqwest::{Body, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::bars;
use super::unreadable;
use crate::client::{Client, Tries};
use crate::error::Error;

const PATH: &str = "/v1/audio/uploads";
/// Bytes of a part: what is lost at most where something between keeps a request back until it is whole.
const PART: u64 = 16 << 20;
/// Without a byte of a part leaving for so long, its connection counts as lost.
const STALLED: Duration = Duration::from_secs(60);
/// How long the answer to a part may take once all of it was sent.
const ANSWER: Duration = Duration::from_secs(120);
/// Tries without any progress: about a quarter of an hour.
const TRIES: u32 = 18;

/// A file that the gateway keeps.
pub struct Upload {
    id: String,
}

/// An upload as the gateway lists it.
#[derive(Deserialize)]
struct Kept {
    id: String,
    bytes: u64,
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Kept>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

/// What is sent, and where its progress is shown.
pub struct Source<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its bytes.
    pub size: u64,
    /// The name of its content and of what is asked of it, where that is known.
    pub fingerprint: Option<&'a str>,
    /// Its bar.
    pub bar: &'a ProgressBar,
}

impl Upload {
    /// Sends a file, or what is missing of it. `None` where the gateway takes no files in parts, or none as large.
    ///
    /// # Errors
    /// When the file cannot be read, the gateway refuses it, or was away for too long.
    pub async fn send(client: &Client, source: &Source<'_>) -> Result<Option<Self>, Error> {
        let mut tries = Tries::of(TRIES);
        loop {
            let Some(upload) = Self::find(client, source).await? else { return Ok(None) };
            match upload.fill(client, source, &mut tries).await {
                // It was forgotten meanwhile.
                Err(error) if error.is(StatusCode::NOT_FOUND) => tries.anyway(error).await?,
                filled => return filled.map(|()| Some(upload)),
            }
        }
    }

    /// The id that a transcription names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Has the gateway forget it.
    pub async fn forget(&self, client: &Client) {
        // It expires all the same.
        let _ = client.send(client.request(Method::DELETE, &format!("{PATH}/{}", self.id))).await;
    }

    /// The upload of an earlier run, or a new one.
    async fn find(client: &Client, source: &Source<'_>) -> Result<Option<Self>, Error> {
        let list: List = match client.json("the list of uploads", PATH).await {
            Err(error) if is_unknown(&error) => return Ok(None),
            list => list?,
        };
        let same = |kept: &&Kept| {
            let known = kept.metadata.get("fingerprint").map(String::as_str);
            known.is_some() && known == source.fingerprint && kept.bytes == source.size
        };
        if let Some(kept) = list.data.iter().find(same) {
            return Ok(Some(Self { id: kept.id.clone() }));
        }
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        let metadata = [("filename", &*name), ("fingerprint", source.fingerprint.unwrap_or_default())];
        let metadata = metadata.map(|(name, value)| format!("{name} {}", STANDARD.encode(value))).join(",");
        let mut tries = Tries::default();
        loop {
            let request = tus(client, Method::POST, PATH);
            let request = request.header("upload-length", source.size).header("upload-metadata", &metadata);
            match client.send(request).await {
                Ok(response) => {
                    let made: Made = client.read("a new upload", response).await?;
                    return Ok(Some(Self { id: made.id }));
                }
                Err(error) if error.is(StatusCode::PAYLOAD_TOO_LARGE) => return Ok(None),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Sends part after part until the gateway has all bytes. Whatever goes wrong meanwhile, it is asked how many it has.
    async fn fill(&self, client: &Client, source: &Source<'_>, tries: &mut Tries) -> Result<(), Error> {
        let path = format!("{PATH}/{}", self.id);
        let mut before = 0;
        loop {
            let mut at = match client.send(tus(client, Method::HEAD, &path)).await {
                Ok(response) => offset(&response).unwrap_or(0),
                Err(error) => {
                    tries.again(error).await?;
                    continue;
                }
            };
            if at > before {
                (*tries, before) = (Tries::of(TRIES), at);
            }
            bars::upload(source.bar, at, source.size);
            let lost = loop {
                if at >= source.size {
                    return Ok(());
                }
                match part(client, &path, source, at).await {
                    Ok(arrived) if arrived > at => {
                        (*tries, at, before) = (Tries::of(TRIES), arrived, arrived)
                    }
                    Ok(_) => break client.lost("it keeps nothing of what it is sent".to_owned()),
                    Err(error) => break error,
                }
            };
            match lost.is(StatusCode::CONFLICT) {
                // It has more or less than thought, and will say how much.
                true => tries.anyway(lost).await?,
                false => tries.again(lost).await?,
            }
        }
    }
}

/// Sends the part that begins at `at`, and gives the bytes that have arrived then.
async fn part(client: &Client, path: &str, source: &Source<'_>, at: u64) -> Result<u64, Error> {
    let size = PART.min(source.size - at);
    let mut file =
        tokio::fs::File::open(source.path).await.map_err(|error| unreadable(source.path, error))?;
    file.seek(SeekFrom::Start(at)).await.map_err(|error| unreadable(source.path, error))?;
    let sent = Arc::new(AtomicU64::new(0));
    let (bar, whole, counter) = (source.bar.clone(), source.size, Arc::clone(&sent));
    let counted = ReaderStream::with_capacity(file.take(size), 1 << 16).inspect_ok(move |block| {
        let sent = counter.fetch_add(block.len() as u64, Ordering::Relaxed) + block.len() as u64;
        bars::upload(&bar, at + sent, whole);
    });
    let request = tus(client, Method::PATCH, path)
        .header("content-type", "application/offset+octet-stream")
        .header("content-length", size)
        .header("upload-offset", at)
        .body(Body::wrap_stream(counted));
    tokio::select! {
        response = client.send(request) => Ok(offset(&response?).unwrap_or(at + size)),
        () = stalled(&sent, size) => Err(client.lost("nothing of the upload gets through".to_owned())),
    }
}

/// Resolves when nothing more of a part leaves, or its answer does not come.
async fn stalled(sent: &AtomicU64, size: u64) {
    let mut before = None;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if now < size && before == Some(now) {
            return;
        }
        before = Some(now);
        if now < size {
            tokio::time::sleep(STALLED).await;
        } else {
            return tokio::time::sleep(ANSWER).await;
        }
    }
}

fn tus(client: &Client, method: Method, path: &str) -> RequestBuilder {
    client.request(method, path).header("tus-resumable", "1.0.0")
}

/// How many bytes the gateway has.
fn offset(response: &reqwest::Response) -> Option<u64> {
    response.headers().get("upload-offset")?.to_str().ok()?.parse().ok()
}

/// Whether a gateway takes no files in parts, by its settings or its age.
fn is_unknown(error: &Error) -> bool {
    let refusals = [
        StatusCode::BAD_REQUEST,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::NOT_IMPLEMENTED,
    ];
    refusals.into_iter().any(|status| error.is(status))
}
