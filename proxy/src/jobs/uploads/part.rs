//! Adds one part to the file of an upload.

use std::io::SeekFrom;
use std::path::Path;

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};

use super::{missing, storage};
use crate::error::{Error, UploadError};
use crate::net::body::late;

/// Bytes that are written in one step.
const BLOCK: usize = 256 * 1024;

/// Adds a body that begins at `offset` of a file of `length` bytes, on disk when this returns. Gives the file's new length.
///
/// A body that breaks off leaves what came of it. One that goes beyond the end leaves nothing.
pub(super) async fn add(path: &Path, offset: u64, length: u64, mut body: Body) -> Result<u64, Error> {
    let mut file = OpenOptions::new().write(true).open(path).await.map_err(|error| missing(&error))?;
    let mut at = file.metadata().await.map_err(|error| storage(&error))?.len();
    if at != offset {
        return Err(UploadError::Offset { offset: at }.into());
    }
    if HttpBody::size_hint(&body).lower() > length.saturating_sub(at) {
        return Err(UploadError::Beyond { length }.into());
    }
    file.seek(SeekFrom::Start(at)).await.map_err(|error| storage(&error))?;
    let mut file = BufWriter::with_capacity(BLOCK, file);
    let failure = loop {
        let data = match body.frame().await {
            None => break None,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if late(&error).is_some() => break Some(Error::BodyTimeout),
            Some(Err(_)) => break Some(Error::Truncated),
        };
        at += data.len() as u64;
        if at > length {
            undo(file, offset).await?;
            return Err(UploadError::Beyond { length }.into());
        }
        if let Err(error) = file.write_all(&data).await {
            break Some(storage(&error));
        }
    };
    let synced = sync(&mut file).await;
    match failure {
        Some(error) => Err(error),
        None => synced.map(|()| at).map_err(|error| storage(&error)),
    }
}

/// Takes back what was written behind `offset`.
async fn undo(mut file: BufWriter<File>, offset: u64) -> Result<(), Error> {
    // A write that has begun ends before the file is cut.
    let _ = file.flush().await;
    file.get_ref().set_len(offset).await.map_err(|error| storage(&error))
}

async fn sync(file: &mut BufWriter<File>) -> std::io::Result<()> {
    file.flush().await?;
    file.get_ref().sync_data().await
}
