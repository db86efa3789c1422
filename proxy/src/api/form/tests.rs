//! Uploads in every chunking: the file exact, the fields after it, nothing complete of what is bad.

use std::io::Read;

use axum::body::Body;
use proptest::prelude::*;

use crate::api::form::*;

fn wav(len: usize) -> Vec<u8> {
    let mut file =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data".to_vec();
    file.extend_from_slice(&(len as u32).to_le_bytes());
    file.extend((0..len).map(|at| (at % 251) as u8));
    file
}

fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, filename, data) in parts {
        let filename = filename.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        body.extend_from_slice(
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    body
}

fn request(body: Body) -> Request {
    let content_type = "multipart/form-data; boundary=xyz";
    http::Request::post("/").header(header::CONTENT_TYPE, content_type).body(body).unwrap()
}

fn chunked(body: &[u8], size: usize) -> Body {
    let chunks: Vec<Result<Bytes, Error>> =
        body.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    Body::from_stream(futures::stream::iter(chunks))
}

fn budget() -> Arc<SpoolBudget> {
    let held = prometheus::IntGauge::new("held", "bytes held").unwrap();
    SpoolBudget::new(&crate::config::Spool::default(), held)
}

async fn open(body: Body, limit: u64) -> Result<Form, Error> {
    match Form::open(request(body), limit, budget()).await? {
        Opened::Form(form) => Ok(form),
        Opened::Fields(fields) => panic!("{fields:?} without a file"),
    }
}

/// The file and the fields of an upload, or why it is refused.
async fn upload(body: Body, limit: u64) -> Result<(Vec<u8>, Fields, InputHash), Error> {
    let form = open(body, limit).await?;
    form.bytes.fill().await;
    form.bytes.failure().map_or(Ok(()), Err)?;
    let mut file = Vec::new();
    form.bytes.blocking().unwrap().read_to_end(&mut file).unwrap();
    let seen = form.seen.lock();
    Ok((file, seen.fields.clone(), seen.input.unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_file_arrives_exact_whatever_the_chunks_and_the_order(
        len in prop_oneof![0usize..3000, 60_000usize..140_000],
        size in prop_oneof![1usize..40, 40usize..70_000],
        field_first: bool,
    ) {
        let size = if len > 3000 { size.max(500) } else { size };
        let file = wav(len);
        let (file_part, note) = (("file", Some("a.wav"), &file[..]), ("note", None, &b"hello"[..]));
        let body = form(&if field_first { [note, file_part] } else { [file_part, note] });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (read, fields, input) = runtime.block_on(upload(chunked(&body, size), 1 << 30)).unwrap();
        let hash = InputHash::of(&file);
        prop_assert!(read == file);
        prop_assert_eq!(fields.last("note"), Some("hello"));
        prop_assert_eq!(input, hash);
    }

    #[test]
    fn a_truncated_upload_never_becomes_complete(len in 0usize..140_000, keep in 0.0f64..1.0) {
        let body = form(&[("file", Some("a.wav"), &wav(len)), ("note", None, b"hello")]);
        let keep = (keep * (body.len() - 4) as f64) as usize;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let refused = runtime.block_on(upload(chunked(&body[..keep], 5000), 1 << 30)).unwrap_err();
        prop_assert_eq!(refused, Error::Truncated);
    }
}

async fn refusal(parts: &[(&str, Option<&str>, &[u8])]) -> Error {
    upload(form(parts).into(), 1 << 30).await.unwrap_err()
}

#[tokio::test]
async fn bad_files_are_refused_before_an_engine_is_chosen() {
    assert_eq!(refusal(&[("note", None, b"x")]).await, Error::param("file", "file is missing"));
    assert_eq!(refusal(&[("file", Some("a.wav"), b"")]).await, Error::param("file", "the file is empty"));
    assert_eq!(
        refusal(&[("file", Some("notes.txt"), b"hello")]).await,
        Error::UnsupportedFile { found: "txt".into() }
    );
    let lie = refusal(&[("file", Some("a.wav"), b"hello there, this is no sound")]).await;
    assert_eq!(lie.param_name(), Some("file"));
    let sound = wav(10);
    let two = refusal(&[("file", Some("a.wav"), &sound), ("file", Some("b.wav"), &sound)]).await;
    assert_eq!(two.param_name(), Some("file"));
}

#[tokio::test]
async fn fields_after_the_file_begin_the_job_anew_with_all_of_them() {
    let file = wav(200_000);
    for parts in [
        // Fields come first and more come last.
        &[("model", None, &b"m"[..]), ("file", Some("a.wav"), &file), ("note", None, b"late")][..],
        // The file comes first.
        &[("file", Some("a.wav"), &file), ("model", None, b"m"), ("note", None, b"late")],
        // Nothing comes after the file.
        &[("model", None, b"m"), ("note", None, b"late"), ("file", Some("a.wav"), &file)],
    ] {
        let form = open(chunked(&super::tests::form(parts), 10_000), 1 << 30).await.unwrap();
        let runs = std::sync::atomic::AtomicUsize::new(0);
        let note = form
            .serve(async |fields: Fields| {
                runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let gate = form.gate(&fields, |_| false);
                form.bytes.fill().await;
                gate.check()?;
                Ok(fields.last("note").map(str::to_owned))
            })
            .await;
        assert_eq!(note, Ok(Some("late".to_owned())));
        let expected = if parts[0].0 == "model" && parts[2].0 == "note" { 2 } else { 1 };
        assert_eq!(runs.into_inner(), expected);
    }
}

#[tokio::test]
async fn a_poisonous_file_is_refused_before_its_end_is_sent() {
    let body = form(&[("model", None, b"m"), ("file", Some("a.wav"), &wav(200_000))]);
    let form = open(chunked(&body, 10_000), 1 << 30).await.unwrap();
    let fields = form.seen.lock().fields.clone();
    let gate = form.gate(&fields, |_| true);
    assert_eq!(gate.check(), Ok(()), "the hash is not known yet");
    form.bytes.fill().await;
    assert_eq!(gate.check(), Err(Error::PoisonInput));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_at_once_or_when_it_gets_there() {
    let body = form(&[("file", Some("a.wav"), &wav(200_000))]);
    let mut announced = request(Body::empty());
    announced.headers_mut().insert(header::CONTENT_LENGTH, "200001".parse().unwrap());
    let refused = Form::open(announced, 200_000, budget()).await.err().unwrap();
    assert_eq!(refused, Error::TooLarge { limit: 200_000 });
    let refused = upload(chunked(&body, 10_000), 200_000).await.unwrap_err();
    assert_eq!(refused, Error::TooLarge { limit: 200_000 });
}

#[tokio::test]
async fn files_of_other_fields_are_left_out() {
    let (voice, sound) = (wav(100_000), wav(500));
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("known_speaker_references[]", Some("me.wav"), &voice), ("file", Some("a.wav"), &sound)];
    let (file, ..) = upload(form(&parts).into(), 1 << 20).await.unwrap();
    assert_eq!(file, sound);
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    for content_type in ["application/json", "multipart/form-data", ""] {
        let request = http::Request::post("/")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from("{}"))
            .unwrap();
        let refused = Form::open(request, 100, budget()).await.err().unwrap();
        assert_eq!(refused.status(), 400);
    }
}

#[tokio::test]
async fn seconds_of_audio_are_known_from_the_first_bytes() {
    let body = form(&[("file", Some("a.wav"), &wav(320_000))]);
    let opened = open(chunked(&body, 8192), 1 << 30).await.unwrap();
    // Nothing shows yet that the file is as long as it states.
    assert_eq!(opened.playing, Playing { seconds: 10.0, exact: false });
}

#[tokio::test]
async fn a_text_field_with_a_file_name_is_the_field() {
    let sound = wav(500);
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("model", Some("blob"), b"whisper-1"), ("file", Some("a.wav"), &sound)];
    let (file, fields, _) = upload(form(&parts).into(), 1 << 20).await.unwrap();
    assert_eq!(fields.last("model"), Some("whisper-1"));
    assert_eq!(file, sound);
}

#[tokio::test]
async fn forms_that_cannot_be_read_are_refused_with_the_cause() {
    let bare = String::from_utf8(form(&[("model", None, b"m")])).unwrap().replace("\r\n", "\n");
    let refused = upload(bare.into(), 1 << 20).await.unwrap_err().to_string();
    assert!(refused.contains("CR LF"), "{refused}");
    let mut zipped = request(Body::from("x"));
    zipped.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    let refused = Form::open(zipped, 1 << 20, budget()).await.err().unwrap().to_string();
    assert!(refused.contains("Content-Encoding gzip"), "{refused}");
}
