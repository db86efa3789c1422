//! Uploads in every chunking: the file exact, the fields after it, nothing complete of what is bad.

use futures::TryStreamExt;
use proptest::prelude::*;

use crate::api::form::*;

/// Sends the client's `note` field to the engine; refuses the value `bad`.
struct Notes;

impl Purpose for Notes {
    fn check(&self, fields: &Fields) -> Result<(), Error> {
        match fields.last("note") {
            Some("bad") => Err(Error::param("note", "bad")),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, fields: &Fields, hash: &str) -> Result<Vec<(&'static str, String)>, Error> {
        self.check(fields)?;
        Ok(vec![("note", fields.last("note").unwrap_or("none").to_owned()), ("hash", hash.to_owned())])
    }
}

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

/// The parts of what went to the engine, or why nothing complete did.
async fn upload(body: Body, limit: u64) -> Result<Vec<Event>, Error> {
    let opened = Upload::open(request(body), limit, Notes).await?;
    let sent: Vec<Bytes> = opened.upload.try_collect().await?;
    let sent = sent.concat();
    assert!(opened.len.is_none_or(|len| len == sent.len() as u64));
    let boundary = Boundary::parse(opened.content_type.to_str().unwrap()).unwrap();
    let mut parser = Parser::new(&boundary, LIMITS);
    let events = parser.push(sent.into()).unwrap();
    parser.finish().unwrap();
    Ok(events)
}

fn file_of(events: &[Event]) -> Vec<u8> {
    let data = events.iter().filter_map(|event| match event {
        Event::FileData(data) => Some(&data[..]),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

fn fields_of(events: &[Event]) -> Vec<(&str, &str)> {
    let fields = events.iter().filter_map(|event| match event {
        Event::Field { name, value } => Some((name.as_str(), value.as_str())),
        _ => None,
    });
    fields.collect()
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let events = runtime.block_on(upload(chunked(&body, size), 1 << 30)).unwrap();
        let file_first = matches!(events[0], Event::FileStart { .. });
        prop_assert!(file_first);
        prop_assert_eq!(file_of(&events), file.clone());
        let hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&file));
        prop_assert_eq!(fields_of(&events), vec![("note", "hello"), ("hash", &hash[..])]);
    }

    #[test]
    fn a_truncated_upload_never_becomes_complete(len in 0usize..140_000, keep in 0.0f64..1.0) {
        let body = form(&[("file", Some("a.wav"), &wav(len)), ("note", None, b"hello")]);
        let keep = (keep * (body.len() - 4) as f64) as usize;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
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
    let bad = refusal(&[("note", None, b"bad"), ("file", Some("a.wav"), &wav(200_000))]).await;
    assert_eq!(bad.param_name(), Some("note"));
}

#[tokio::test]
async fn a_late_bad_field_ends_the_stream_without_its_close() {
    let body = form(&[("file", Some("a.wav"), &wav(200_000)), ("note", None, b"bad")]);
    let opened = Upload::open(request(chunked(&body, 10_000)), 1 << 30, Notes).await.unwrap();
    assert_eq!(opened.len, None);
    let (mut sent, mut stream) = (Vec::new(), opened.upload);
    let refused = loop {
        match stream.try_next().await {
            Ok(Some(bytes)) => sent.extend_from_slice(&bytes),
            Ok(None) => panic!("the upload was completed"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.param_name(), Some("note"));
    let mut parser = Parser::new(&Boundary::new("xyz").unwrap(), LIMITS);
    parser.push(sent.into()).unwrap();
    assert!(parser.finish().is_err());
    assert_eq!(stream.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_at_once_or_when_it_gets_there() {
    let body = form(&[("file", Some("a.wav"), &wav(200_000))]);
    let mut announced = request(Body::empty());
    announced.headers_mut().insert(header::CONTENT_LENGTH, "200001".parse().unwrap());
    let refused = Upload::open(announced, 200_000, Notes).await.err().unwrap();
    assert_eq!(refused, Error::TooLarge { limit: 200_000 });
    let refused = upload(chunked(&body, 10_000), 200_000).await.unwrap_err();
    assert_eq!(refused, Error::TooLarge { limit: 200_000 });
}

#[tokio::test]
async fn nameless_files_get_a_name_that_tells_their_kind() {
    for filename in [None, Some("blob"), Some(""), Some("odd \"name\".exe")] {
        let events = upload(form(&[("file", filename, &wav(10))]).into(), 1 << 20).await.unwrap();
        let Event::FileStart { filename, content_type, .. } = &events[0] else { panic!("no file") };
        assert_eq!(filename.as_deref(), Some("audio.wav"));
        assert_eq!(content_type.as_deref(), Some("audio/wav"));
    }
}

#[tokio::test]
async fn files_of_other_fields_are_left_out() {
    let (voice, sound) = (wav(100_000), wav(500));
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("known_speaker_references[]", Some("me.wav"), &voice), ("file", Some("a.wav"), &sound)];
    let events = upload(form(&parts).into(), 1 << 20).await.unwrap();
    assert_eq!(file_of(&events), sound);
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    for content_type in ["application/json", "multipart/form-data", ""] {
        let request = http::Request::post("/")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from("{}"))
            .unwrap();
        let refused = Upload::open(request, 100, Notes).await.err().unwrap();
        assert_eq!(refused.status(), 400);
    }
}

#[tokio::test]
async fn seconds_of_audio_are_known_from_the_first_bytes() {
    let body = form(&[("file", Some("a.wav"), &wav(320_000))]);
    let opened = Upload::open(request(chunked(&body, 8192)), 1 << 30, Notes).await.unwrap();
    // Nothing shows yet that the file is as long as it states.
    assert_eq!(opened.playing, Playing { seconds: 10.0, exact: false });
}
