//! Parts in every cut, with breaks between them: the file is exact.

use std::fs;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use proptest::prelude::*;

use super::{Metrics, Upload, Uploads};
use crate::config::{Config, Current};
use crate::error::{Error, UploadError};

fn open(dir: &std::path::Path) -> Uploads {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    Uploads::open(dir, false, Current::new(Config::default()), metrics).unwrap()
}

async fn create(uploads: &Uploads, length: usize) -> Arc<Upload> {
    uploads.create("owner".into(), length as u64, String::new(), 0).await.unwrap()
}

/// A body in pieces, which breaks off at its end if it is to.
fn body(part: &[u8], piece: usize, breaks: bool) -> Body {
    let pieces: Vec<io::Result<Bytes>> =
        part.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let broken = breaks.then(|| Err(io::Error::from(io::ErrorKind::ConnectionReset)));
    Body::from_stream(futures::stream::iter(pieces.into_iter().chain(broken)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_file_is_exact_whatever_its_parts_and_where_they_break(
        len in prop_oneof![0usize..2000, 500_000usize..700_000],
        parts in prop::collection::vec((1usize..400_000, 1usize..70_000, any::<bool>(), any::<bool>()), 1..6),
    ) {
        let file: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut uploads = open(dir.path());
            let upload = create(&uploads, len).await;
            let (mut at, mut turn) = (0, 0);
            while at < len {
                let (size, piece, breaks, restarts) = parts[turn % parts.len()];
                turn += 1;
                // A few large steps reach the end of a large file.
                let part = &file[at..(at + size.max(len / 20)).min(len)];
                let added = uploads.append(&upload, at as u64, body(part, piece.max(len / 500).max(1), breaks)).await;
                at += part.len();
                match added {
                    Ok(arrived) => assert_eq!((arrived, breaks), (at as u64, false)),
                    Err(error) => assert_eq!((error, breaks), (Error::Truncated, true)),
                }
                if restarts {
                    uploads = open(dir.path());
                }
                assert_eq!(uploads.offset(&upload).await.unwrap(), at as u64);
            }
            assert!(fs::read(uploads.path(&upload.id)).unwrap() == file);
            assert_eq!(uploads.get(&upload.id, "owner").await.unwrap(), upload);
        });
    }
}

#[tokio::test]
async fn an_upload_that_is_removed_while_a_part_comes_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let uploads = open(dir.path());
    let upload = create(&uploads, 1000).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(1);
    let pieces =
        futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let part = tokio::spawn({
        let (uploads, upload) = (uploads.clone(), Arc::clone(&upload));
        async move { uploads.append(&upload, 0, Body::from_stream(pieces)).await }
    });
    sender.send(Ok(Bytes::from_static(b"some"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
    assert_eq!(uploads.append(&upload, 0, Body::empty()).await, Err(UploadError::Busy.into()));
    assert_eq!(uploads.remove(&upload.id, "other").await, Err(UploadError::NotFound.into()));
    uploads.remove(&upload.id, "owner").await.unwrap();
    assert_eq!(uploads.append(&upload, 0, Body::empty()).await, Err(UploadError::NotFound.into()));
    drop(sender);
    assert_eq!(part.await.unwrap(), Ok(8));
    assert_eq!(fs::read_dir(dir.path().join("parts")).unwrap().count(), 0);
}
