//! Files that come in parts, over the wire: whole, broken off, after a crash, refused, and what is made of them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gateway::tests::long::{self, spoken, text};
use crate::gateway::tests::stack::{Stack, TRANSCRIBE, envelope, form};

const LIMIT: Duration = Duration::from_secs(60);
const UPLOADS: &str = "/v1/audio/uploads";

async fn stack(dir: &Path) -> Stack {
    with(dir, |_| {}).await
}

async fn with(dir: &Path, settings: impl FnOnce(&mut crate::config::Jobs)) -> Stack {
    long::stack(1, |config| {
        config.gateway.jobs.dir = Some(dir.to_owned());
        settings(&mut config.gateway.jobs);
    })
    .await
}

fn tus(stack: &Stack, method: Method, path: &str) -> reqwest::RequestBuilder {
    stack.client.request(method, format!("{}{path}", stack.url)).header("tus-resumable", "1.0.0")
}

fn begin(stack: &Stack, length: usize) -> reqwest::RequestBuilder {
    tus(stack, Method::POST, UPLOADS).header("upload-length", length)
}

/// Begins an upload and gives its path.
async fn begun(stack: &Stack, length: usize) -> String {
    let response = begin(stack, length).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let shown: Value = response.json().await.unwrap();
    assert_eq!(location, format!("{UPLOADS}/{}", shown["id"].as_str().unwrap()));
    location
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn part(stack: &Stack, path: &str, offset: usize, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let patch = tus(stack, Method::PATCH, path).header("upload-offset", offset);
    patch.header("content-type", "application/offset+octet-stream").body(body)
}

fn number(headers: &HeaderMap, name: &str) -> usize {
    headers[name].to_str().unwrap().parse().unwrap()
}

async fn offset(stack: &Stack, path: &str) -> usize {
    let response = tus(stack, Method::HEAD, path).send().await.unwrap();
    assert_eq!(
        (response.status(), response.headers()["cache-control"].to_str().unwrap()),
        (StatusCode::OK, "no-store")
    );
    number(response.headers(), "upload-offset")
}

/// Uploads a file in parts of that size and gives its path.
async fn uploaded(stack: &Stack, file: &[u8], size: usize) -> String {
    let path = begun(stack, file.len()).await;
    let mut at = 0;
    for piece in file.chunks(size) {
        assert_eq!(offset(stack, &path).await, at);
        let response = part(stack, &path, at, piece.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 204);
        at += piece.len();
        assert_eq!(number(response.headers(), "upload-offset"), at);
    }
    path
}

fn transcribe(stack: &Stack, fields: &[(&'static str, &str)]) -> reqwest::RequestBuilder {
    let form = reqwest::multipart::Form::new();
    let form = fields.iter().fold(form, |form, (name, value)| form.text(*name, (*value).to_owned()));
    stack.post(TRANSCRIBE).multipart(form)
}

async fn ended(stack: &Stack, job: &Value) -> Value {
    let (path, deadline) =
        (format!("/v1/audio/jobs/{}", job["id"].as_str().unwrap()), Instant::now() + LIMIT);
    loop {
        let job: Value = stack.get(&path).await.json().await.unwrap();
        if !matches!(job["status"].as_str().unwrap(), "queued" | "running") {
            return job;
        }
        assert!(Instant::now() < deadline, "{job} does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_file_in_parts_is_transcribed_at_once_and_as_a_job() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let file = spoken(60);
    let path = uploaded(&stack, &file, 300_000).await;
    // Clients of tus know the URL alone.
    for name in [id(&path), &format!("{}{path}", stack.url)] {
        let heard =
            transcribe(&stack, &[("upload_id", name), ("response_format", "text")]).send().await.unwrap();
        assert_eq!(heard.text().await.unwrap().trim(), text(60));
    }
    let fields = [("upload_id", id(&path)), ("async", "true"), ("response_format", "text")];
    let send = || transcribe(&stack, &fields).header("idempotency-key", "k").send();
    let made = send().await.unwrap();
    assert_eq!(made.status(), 202);
    let job: Value = made.json().await.unwrap();
    assert_eq!(tus(&stack, Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(ended(&stack, &job).await["status"], "succeeded", "a job outlives the upload it was made of");
    let result = stack.get(&format!("/v1/audio/jobs/{}/result", job["id"].as_str().unwrap())).await;
    assert_eq!(result.text().await.unwrap().trim(), text(60));
    for folder in ["uploads", "parts"] {
        assert_eq!(std::fs::read_dir(dir.path().join(folder)).unwrap().count(), 0, "{folder} is not empty");
    }
    // The same file again, whole or in parts, is the same request.
    let path = uploaded(&stack, &file, 1 << 20).await;
    let again =
        transcribe(&stack, &[("upload_id", id(&path)), ("async", "true"), ("response_format", "text")]);
    let again: Value = again.header("idempotency-key", "k").send().await.unwrap().json().await.unwrap();
    assert_eq!(again["id"], job["id"]);
    let whole =
        stack.post(TRANSCRIBE).multipart(form(&[("async", "true"), ("response_format", "text")], file));
    let whole: Value = whole.header("idempotency-key", "k").send().await.unwrap().json().await.unwrap();
    assert_eq!(whole["id"], job["id"]);
    assert_eq!(stack.counted("speechstack_gateway_upload_parts_total", "kept"), 6.0);
}

#[tokio::test]
async fn an_upload_is_used_where_an_sdk_insists_on_a_file_and_by_other_calls() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let path = uploaded(&stack, &spoken(12), 1 << 20).await;
    let name: &'static str = id(&path).to_owned().leak();
    let heard =
        stack.post(TRANSCRIBE).multipart(form(&[("upload_id", name)], Vec::new())).send().await.unwrap();
    assert_eq!(heard.json::<Value>().await.unwrap()["text"], text(12));
    let events = transcribe(&stack, &[("upload_id", name), ("stream", "true"), ("model", "parakeet")]);
    let events = events.send().await.unwrap().text().await.unwrap();
    assert!(events.contains("transcript.text.done") && events.contains(&text(12)), "{events}");
    let both =
        stack.post(TRANSCRIBE).multipart(form(&[("upload_id", name)], spoken(12))).send().await.unwrap();
    envelope(both, 400, Some("upload_id")).await;
    let elsewhere = reqwest::multipart::Form::new().text("upload_id", name);
    let elsewhere = stack.post("/v1/audio/diarizations").multipart(elsewhere).send().await.unwrap();
    let message = envelope(elsewhere, 400, Some("file")).await;
    assert!(message.contains("upload_id"), "{message}");
}

#[tokio::test]
async fn what_is_no_good_part_is_refused_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let path = begun(&stack, 1000).await;
    assert_eq!(part(&stack, &path, 0, vec![1; 400]).send().await.unwrap().status(), 204);
    for wrong in [0, 399, 401, 1000, 5000] {
        let refused = part(&stack, &path, wrong, vec![2; 100]).send().await.unwrap();
        assert_eq!(number(refused.headers(), "upload-offset"), 400);
        assert_eq!(refused.headers()["tus-resumable"], "1.0.0");
        envelope(refused, 409, Some("Upload-Offset")).await;
    }
    let long = part(&stack, &path, 400, vec![2; 601]).send().await.unwrap();
    envelope(long, 413, None).await;
    // As long, and not announced.
    let pieces = futures::stream::iter((0..7).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![2; 100]))));
    let long = part(&stack, &path, 400, reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    envelope(long, 413, None).await;
    let url = format!("{}{path}", stack.url);
    for kind in ["application/octet-stream", "audio/wav", ""] {
        let patch =
            tus(&stack, Method::PATCH, &path).header("upload-offset", 400).header("content-type", kind);
        envelope(patch.body(vec![2; 100]).send().await.unwrap(), 415, Some("Content-Type")).await;
    }
    for value in ["", "-1", "4e2", "99999999999999999999"] {
        let patch = tus(&stack, Method::PATCH, &path).header("upload-offset", value);
        let patch = patch.header("content-type", "application/offset+octet-stream").body(vec![2; 100]);
        envelope(patch.send().await.unwrap(), 400, Some("Upload-Offset")).await;
    }
    for (method, url) in
        [(Method::PATCH, &url), (Method::HEAD, &url), (Method::POST, &format!("{}{UPLOADS}", stack.url))]
    {
        let bare = stack.client.request(method.clone(), url).header("upload-offset", 400);
        let bare = bare.header("content-type", "application/offset+octet-stream").header("upload-length", 1);
        for request in [bare.try_clone().unwrap(), bare.header("tus-resumable", "0.2.2")] {
            let refused = request.send().await.unwrap();
            assert_eq!(
                (refused.status(), &refused.headers()["tus-version"]),
                (StatusCode::PRECONDITION_FAILED, &"1.0.0".parse().unwrap()),
                "{method}"
            );
        }
    }
    assert_eq!(offset(&stack, &path).await, 400);
    assert_eq!(std::fs::read(dir.path().join("parts").join(id(&path))).unwrap(), [1; 400]);
    let early = transcribe(&stack, &[("upload_id", id(&path))]).send().await.unwrap();
    let message = envelope(early, 409, Some("upload_id")).await;
    assert!(message.contains("400 of 1000"), "{message}");
    assert_eq!(part(&stack, &path, 400, vec![1; 600]).send().await.unwrap().status(), 204);
    let noise = transcribe(&stack, &[("upload_id", id(&path))]).send().await.unwrap();
    envelope(noise, 400, Some("file")).await;
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn an_upload_that_cannot_be_is_refused_at_its_beginning() {
    let dir = TempDir::new().unwrap();
    let stack = with(dir.path(), |jobs| jobs.uploads.max_size = bytesize::ByteSize::kib(64)).await;
    envelope(tus(&stack, Method::POST, UPLOADS).send().await.unwrap(), 400, Some("Upload-Length")).await;
    let deferred = tus(&stack, Method::POST, UPLOADS).header("upload-defer-length", 1);
    envelope(deferred.send().await.unwrap(), 400, Some("Upload-Length")).await;
    for length in ["x", "-5", "1.5"] {
        let request = tus(&stack, Method::POST, UPLOADS).header("upload-length", length);
        envelope(request.send().await.unwrap(), 400, Some("Upload-Length")).await;
    }
    envelope(begin(&stack, 65_537).send().await.unwrap(), 413, Some("file")).await;
    let unreadable = begin(&stack, 10).header("upload-metadata", "filename ???").send().await.unwrap();
    envelope(unreadable, 400, Some("Upload-Metadata")).await;
    assert_eq!(std::fs::read_dir(dir.path().join("parts")).unwrap().count(), 0);
    let empty = begun(&stack, 0).await;
    let heard = transcribe(&stack, &[("upload_id", id(&empty))]).send().await.unwrap();
    envelope(heard, 400, Some("file")).await;
    let unknown = transcribe(&stack, &[("upload_id", "upload_0")]).send().await.unwrap();
    envelope(unknown, 404, Some("upload_id")).await;
    let without = long::stack(1, |_| {}).await;
    for refused in [
        begin(&without, 10),
        transcribe(&without, &[("upload_id", "x")]),
        tus(&without, Method::GET, UPLOADS),
    ] {
        let message = envelope(refused.send().await.unwrap(), 400, None).await;
        assert!(message.contains("gateway.jobs.dir"), "{message}");
    }
}

#[tokio::test]
async fn an_upload_is_seen_by_the_credential_that_made_it() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let made = begin(&stack, 10).bearer_auth("mine").send().await.unwrap();
    let path = made.headers()["location"].to_str().unwrap().to_owned();
    let requests = || {
        [
            tus(&stack, Method::HEAD, &path),
            tus(&stack, Method::GET, &path),
            part(&stack, &path, 0, vec![0; 10]),
            transcribe(&stack, &[("upload_id", id(&path))]),
            tus(&stack, Method::DELETE, &path),
        ]
    };
    for request in requests().into_iter().chain(requests().map(|request| request.bearer_auth("yours"))) {
        assert_eq!(request.send().await.unwrap().status(), 404);
    }
    let list: Value = stack.get(UPLOADS).await.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 0);
    let statuses = [200, 200, 204, 400, 204];
    for (request, status) in requests().into_iter().zip(statuses) {
        assert_eq!(request.bearer_auth("mine").send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_part_keeps_what_came_and_no_more() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stack = stack(dir.path()).await;
    let file = spoken(60);
    let path = begun(&stack, file.len()).await;
    // A part that never ends.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let pieces =
        futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let endless = tokio::spawn(part(&stack, &path, 0, reqwest::Body::wrap_stream(pieces)).send());
    for piece in file[..700_000].chunks(50_000) {
        sender.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    while offset(&stack, &path).await == 0 {
        assert!(Instant::now() < deadline, "nothing is written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let busy = part(&stack, &path, 0, vec![0; 10]).send().await.unwrap();
    assert_eq!((busy.status(), &busy.headers()["retry-after"]), (StatusCode::LOCKED, &"5".parse().unwrap()));
    // What a process that is killed leaves behind, and remains of an upload that never was.
    std::fs::create_dir(copy.path().join("parts")).unwrap();
    for kept in std::fs::read_dir(dir.path().join("parts")).unwrap() {
        let kept = kept.unwrap();
        std::fs::copy(kept.path(), copy.path().join("parts").join(kept.file_name())).unwrap();
    }
    for (name, bytes) in [("upload_1", "x"), ("upload_2.json", "{"), ("upload_3.json.part", "")] {
        std::fs::write(copy.path().join("parts").join(name), bytes).unwrap();
    }
    let second = self::stack(copy.path()).await;
    assert_eq!(std::fs::read_dir(copy.path().join("parts")).unwrap().count(), 2);
    let at = offset(&second, &path).await;
    assert!(at > 0 && at <= 700_000, "{at}");
    let list: Value = second.get(UPLOADS).await.json().await.unwrap();
    assert_eq!((&list["data"][0]["offset"], &list["data"][0]["status"]), (&at.into(), &"uploading".into()));
    let rest = part(&second, &path, at, file[at..].to_vec()).send().await.unwrap();
    assert_eq!(rest.status(), 204);
    let heard: Value =
        transcribe(&second, &[("upload_id", id(&path))]).send().await.unwrap().json().await.unwrap();
    assert_eq!(heard["text"], text(60));
    // The client of the first one leaves: all that it sent is kept, and the next part may come.
    endless.abort();
    drop(sender);
    let deadline = Instant::now() + LIMIT;
    let resumed = loop {
        let at = offset(&stack, &path).await;
        let response = part(&stack, &path, at, file[at..].to_vec()).send().await.unwrap();
        if response.status() != StatusCode::LOCKED {
            break (at, response.status());
        }
        assert!(Instant::now() < deadline, "the upload stays locked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(resumed.1, 204);
    assert_eq!(std::fs::read(dir.path().join("parts").join(id(&path))).unwrap(), file);
}

#[tokio::test]
async fn what_came_before_a_connection_broke_is_kept() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let path = begun(&stack, 100_000).await;
    let mut connection = TcpStream::connect(stack.address).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: 100000\r\n\
         Content-Type: application/offset+octet-stream\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&[7; 40_000]).await.unwrap();
    connection.shutdown().await.unwrap();
    drop(connection);
    let deadline = Instant::now() + LIMIT;
    while offset(&stack, &path).await != 40_000 {
        assert!(Instant::now() < deadline, "what came is not kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The part that broke off is put on disk before another one may come.
    loop {
        let status = part(&stack, &path, 40_000, vec![7; 60_000]).send().await.unwrap().status();
        if status != StatusCode::LOCKED {
            assert_eq!(status, 204);
            break;
        }
        assert!(Instant::now() < deadline, "the part that broke off does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(std::fs::read(dir.path().join("parts").join(id(&path))).unwrap(), [7; 100_000]);
}

#[tokio::test]
async fn uploads_are_bounded_and_forgotten() {
    let dir = TempDir::new().unwrap();
    let stack = with(dir.path(), |jobs| {
        jobs.disk = bytesize::ByteSize::mib(8);
        jobs.uploads.per_key = 2;
        jobs.uploads.ttl = Duration::from_secs(5);
    })
    .await;
    let first = begun(&stack, 1 << 20).await;
    begun(&stack, 1 << 20).await;
    let third = begin(&stack, 10).send().await.unwrap();
    assert!(third.headers().contains_key("retry-after"));
    let message = envelope(third, 429, None).await;
    assert!(message.starts_with("2 uploads"), "{message}");
    // Another caller has as many, and half of the disk is for jobs.
    let other = |length| begin(&stack, length).bearer_auth("other").send();
    assert_eq!(other(2 << 20).await.unwrap().status(), 201);
    let message = envelope(other(1 << 20).await.unwrap(), 429, None).await;
    assert!(message.starts_with("there is no room"), "{message}");
    envelope(other(5 << 20).await.unwrap(), 413, Some("file")).await;
    let deadline = Instant::now() + LIMIT;
    while tus(&stack, Method::HEAD, &first).send().await.unwrap().status() != 404 {
        assert!(Instant::now() < deadline, "nothing is forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while stack.counted("speechstack_gateway_uploads_removed_total", "expired") < 3.0 {
        assert!(Instant::now() < deadline, "not all are forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_dir(dir.path().join("parts")).unwrap().count(), 0);
    assert_eq!(begin(&stack, 10).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn an_upload_leaves_room_for_jobs_and_is_counted_once() {
    let dir = TempDir::new().unwrap();
    let file = spoken(60);
    let stack = with(dir.path(), |jobs| jobs.disk = bytesize::ByteSize::b(file.len() as u64 * 5 / 2)).await;
    *stack.engines[0].pace.lock() = Duration::from_secs(3600);
    let path = uploaded(&stack, &file, 1 << 20).await;
    for _ in 0..3 {
        let job = transcribe(&stack, &[("upload_id", id(&path)), ("async", "true")]).send().await.unwrap();
        assert_eq!(job.status(), 202, "it shares the bytes of the upload");
    }
    let whole = || stack.post(TRANSCRIBE).multipart(form(&[("async", "true")], file.clone())).send();
    assert_eq!(whole().await.unwrap().status(), 202);
    assert_eq!(whole().await.unwrap().status(), 429);
}

#[tokio::test]
async fn browsers_and_clients_that_know_post_alone_can_upload() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let url = format!("{}{UPLOADS}", stack.url);
    let options = stack.client.request(Method::OPTIONS, &url).send().await.unwrap();
    assert_eq!(
        (options.status(), &options.headers()["tus-version"]),
        (StatusCode::NO_CONTENT, &"1.0.0".parse().unwrap())
    );
    assert_eq!(options.headers()["tus-extension"], "creation,creation-with-upload,termination,expiration");
    assert_eq!(number(options.headers(), "tus-max-size"), 8 << 30);
    assert!(options.headers()["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
    // The first part comes with the beginning.
    let made = begin(&stack, 30)
        .header("content-type", "application/offset+octet-stream")
        .header("upload-metadata", "filename YS53YXY=");
    let made = made.body(vec![1; 10]).send().await.unwrap();
    assert_eq!((made.status(), number(made.headers(), "upload-offset")), (StatusCode::CREATED, 10));
    assert!(made.headers()["access-control-expose-headers"].to_str().unwrap().contains("upload-offset"));
    assert!(made.headers()["upload-expires"].to_str().unwrap().ends_with(" GMT"));
    let path = made.headers()["location"].to_str().unwrap().to_owned();
    let post =
        |method: &'static str| tus(&stack, Method::POST, &path).header("x-http-method-override", method);
    let patch =
        post("PATCH").header("content-type", "application/offset+octet-stream").header("upload-offset", 10);
    assert_eq!(patch.body(vec![1; 20]).send().await.unwrap().status(), 204);
    let head = tus(&stack, Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (number(head.headers(), "upload-length"), &head.headers()["upload-metadata"]),
        (30, &"filename YS53YXY=".parse().unwrap())
    );
    let shown: Value = stack.get(&path).await.json().await.unwrap();
    assert_eq!(
        (&shown["status"], &shown["filename"], &shown["object"]),
        (&"complete".into(), &"a.wav".into(), &"audio.upload".into())
    );
    assert_eq!(tus(&stack, Method::POST, &path).send().await.unwrap().status(), 405);
    assert_eq!(post("DELETE").send().await.unwrap().status(), 204);
    assert_eq!(post("HEAD").send().await.unwrap().status(), 404);
}
