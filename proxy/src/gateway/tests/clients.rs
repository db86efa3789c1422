//! Requests byte for byte as clients send them that no test can install or that decide themselves what is on the wire: OpenAI's SDK
//! for Java over OkHttp, Open WebUI over requests and aiohttp, wyoming_openai over httpx.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::tests::stack::{Stack, samples, wav};

const LIMIT: Duration = Duration::from_secs(60);
/// A boundary as `UUID.randomUUID()` makes it.
const UUID: &str = "3f0c7b1e-5d44-4c4e-9d8e-0d3a5f6b7c81";
/// One as urllib3 and httpx make it.
const HEX: &str = "8c1f0d2b6a5e4f3c9b7a8d6e5f4c3b2a";
/// Octets of a chunk as okio's buffers cut a body of unknown length.
const SEGMENT: usize = 8192;

/// What comes back on a connection.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A connection that a client keeps.
struct Connection(TcpStream);

impl Connection {
    async fn open(stack: &Stack) -> Self {
        Self(TcpStream::connect(stack.address).await.unwrap())
    }

    async fn send(&mut self, request: &[u8]) -> Answer {
        self.0.write_all(request).await.unwrap();
        tokio::time::timeout(LIMIT, self.answer()).await.expect("an answer in time")
    }

    async fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        let end = loop {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "the connection ended");
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: bytes.split_off(end) };
        if let Some(length) = answer.header("content-length").map(|length| length.parse::<usize>().unwrap()) {
            while answer.body.len() < length {
                assert!(self.0.read_buf(&mut answer.body).await.unwrap() > 0, "the body is cut");
            }
            return answer;
        }
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        while !answer.body.ends_with(b"0\r\n\r\n") {
            assert!(self.0.read_buf(&mut answer.body).await.unwrap() > 0, "the body is cut");
        }
        answer.body = dechunked(&answer.body);
        answer
    }
}

fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

/// A part as openai-java writes it: each has a content type, and a file has a name only if it was opened by a path.
fn java_part(name: &str, filename: Option<&str>, content_type: &str, value: &[u8]) -> Vec<u8> {
    let filename = filename.map(|filename| format!("; filename=\"{filename}\"")).unwrap_or_default();
    let head = format!(
        "--{UUID}\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\nContent-Type: {content_type}\r\n\r\n"
    );
    [head.as_bytes(), value, b"\r\n"].concat()
}

fn java_text(name: &str, value: &str) -> Vec<u8> {
    java_part(name, None, "text/plain; charset=utf-8", value.as_bytes())
}

/// The head of a request of openai-java over OkHttp, without what frames its body.
fn java_head(path: &str, accept: &str, content_type: &str, framing: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nUser-Agent: OpenAIClientImpl/Java 4.12.0\r\nX-Stainless-Arch: x64\r\n\
         X-Stainless-Lang: java\r\nX-Stainless-OS: Linux\r\nX-Stainless-OS-Version: 6.1.0\r\n\
         X-Stainless-Package-Version: 4.12.0\r\nX-Stainless-Runtime: JRE\r\nX-Stainless-Runtime-Version: 21.0.5\r\n\
         X-Stainless-Kotlin-Version: 1.8.0\r\nAuthorization: Bearer unused\r\n{accept}X-Stainless-Retry-Count: 0\r\n\
         X-Stainless-Read-Timeout: 600\r\nX-Stainless-Timeout: 600\r\nContent-Type: {content_type}\r\n{framing}\r\n\
         Host: 127.0.0.1:8080\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

/// A transcription of these parts. A stream has no length, so that its request comes in chunks.
fn java_transcription(parts: &[Vec<u8>], is_stream: bool) -> Vec<u8> {
    let body = [parts.concat(), format!("--{UUID}--\r\n").into_bytes()].concat();
    let content_type = format!("multipart/form-data; boundary={UUID}");
    let path = "/v1/audio/transcriptions";
    if !is_stream {
        let length = format!("Content-Length: {}", body.len());
        return [java_head(path, "", &content_type, &length), body].concat();
    }
    let mut request = java_head(path, "", &content_type, "Transfer-Encoding: chunked");
    for chunk in body.chunks(SEGMENT) {
        request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

#[tokio::test]
async fn openai_java_transcribes_a_path_a_stream_and_bytes() {
    let stack = Stack::start().await;
    let mut connection = Connection::open(&stack).await;
    let binary = "application/octet-stream";
    for bytes in [32_000, 500_000] {
        for (filename, is_stream) in [(Some("speech.wav"), true), (None, true), (None, false)] {
            // The file comes first.
            let parts = [
                java_part("file", filename, binary, &wav(bytes)),
                java_text("model", "whisper-1"),
                java_text("language", "en"),
                java_text("prompt", "So it is."),
                java_text("response_format", "verbose_json"),
                java_text("temperature", "0.0"),
                java_text("timestamp_granularities[]", "word"),
                java_text("timestamp_granularities[]", "segment"),
                java_text("chunking_strategy[type]", "server_vad"),
                java_text("chunking_strategy[silence_duration_ms]", "200"),
            ];
            let answer = connection.send(&java_transcription(&parts, is_stream)).await;
            assert_eq!(answer.status, 200, "{filename:?}, {bytes}: {}", answer.head);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("content-encoding"), None, "gzip is offered and not used");
            let body = answer.json();
            assert!(body["words"].is_array() && body["segments"].is_array(), "{body}");
            let seen = stack.engines[0].seen.lock().last().unwrap().clone();
            // Of a small file the sizes in the header are corrected.
            assert!(seen.file()[44..] == wav(bytes)[44..], "{filename:?}, {bytes}");
            assert_eq!(seen.field("language").as_deref(), Some("en"));
            assert!(!seen.headers.contains_key("authorization"), "the client's key ends here");
        }
    }
}

#[tokio::test]
async fn openai_java_streams_and_reads_errors() {
    let stack = Stack::start().await;
    let mut connection = Connection::open(&stack).await;
    let file = || java_part("file", Some("speech.wav"), "application/octet-stream", &wav(32_000));
    // `stream` is an additional property, behind all others.
    let parts = [file(), java_text("model", "gpt-4o-transcribe"), java_text("stream", "true")];
    let events = connection.send(&java_transcription(&parts, true)).await;
    assert_eq!((events.status, events.header("content-type")), (200, Some("text/event-stream")));
    let data = events.text();
    let data: Vec<Value> = data
        .lines()
        .filter_map(|line| line.strip_prefix("data: ").filter(|data| *data != "[DONE]"))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let deltas: String = data.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(
        (deltas.as_str(), &data.last().unwrap()["text"]),
        ("So it is. Yes.", &json!("So it is. Yes."))
    );
    let parts = [file(), java_text("model", "no-such-model")];
    let refused = connection.send(&java_transcription(&parts, true)).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn openai_java_speaks() {
    let stack = Stack::start().await;
    let mut connection = Connection::open(&stack).await;
    let body =
        json!({"input": "Hi.", "model": "tts-1", "voice": "alloy", "response_format": "pcm", "speed": 1.0});
    let body = body.to_string();
    let length = format!("Content-Length: {}", body.len());
    let accept = "Accept: application/octet-stream\r\n";
    let head = java_head("/v1/audio/speech", accept, "application/json", &length);
    let answer = connection.send(&[head, body.into_bytes()].concat()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/pcm")));
    assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    assert_eq!(answer.body, samples());
}

/// A form as urllib3 writes it for requests, and httpx for OpenAI's SDK: fields, then files, whose type httpx guesses by the name.
fn python_form(fields: &[(&str, &str)], filename: &str, content_type: Option<&str>, file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--{HEX}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.as_bytes());
    }
    let content_type = content_type.map(|kind| format!("Content-Type: {kind}\r\n")).unwrap_or_default();
    let head = format!(
        "--{HEX}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n{content_type}\r\n"
    );
    body.extend(head.as_bytes());
    body.extend(file);
    body.extend(format!("\r\n--{HEX}--\r\n").as_bytes());
    body
}

fn open_webui(fields: &[(&str, &str)], filename: &str, file: &[u8]) -> Vec<u8> {
    let body = python_form(fields, filename, None, file);
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32.5\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept: */*\r\nConnection: keep-alive\r\nAuthorization: Bearer sk-unused\r\n\
         X-OpenWebUI-User-Name: Ada%20Lovelace\r\nX-OpenWebUI-User-Id: 5f0c\r\nX-OpenWebUI-User-Email: ada@example.com\r\n\
         X-OpenWebUI-User-Role: admin\r\nContent-Length: {}\r\nContent-Type: multipart/form-data; boundary={HEX}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn open_webui_transcribes_in_parallel_and_shows_an_errors_message() {
    let stack = Stack::start().await;
    let filename = "0f8e1c9a-2b7d-4f7e-8a0d-3b5c6d7e8f90.wav";
    // A long recording is cut there, and its pieces come together.
    let pieces = (0..4).map(|nth| {
        let request =
            open_webui(&[("model", "whisper-1"), ("language", "en")], filename, &wav(32_000 + nth * 2));
        let stack = &stack;
        async move { Connection::open(stack).await.send(&request).await }
    });
    for answer in futures::future::join_all(pieces).await {
        assert_eq!((answer.status, &answer.json()["text"]), (200, &json!("So it is. Yes.")));
    }
    for seen in stack.engines[0].seen.lock().iter() {
        assert!(
            !seen.headers.keys().any(|name| name.as_str().starts_with("x-openwebui")),
            "whose it is ends here"
        );
    }
    // What fails is sent once more, without the language; its message is read from an object.
    let mut connection = Connection::open(&stack).await;
    for fields in
        [&[("model", "whisper-1"), ("language", "xx-unknown-language")][..], &[("model", "whisper-1")]]
    {
        let answer = connection.send(&open_webui(fields, "0f8e.txt", b"hello")).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[tokio::test]
async fn open_webui_speaks_to_a_file_that_it_names_mp3() {
    let stack = Stack::start().await;
    let mut connection = Connection::open(&stack).await;
    // What an administrator adds in OPENAI_PARAMS is beside what the page sends.
    let body = json!({"input": "Hi.", "voice": "shimmer", "model": "tts-1", "stream": true, "user": "5f0c"})
        .to_string();
    let head = format!(
        "POST /v1/audio/speech HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
         Authorization: Bearer sk-unused\r\nX-OpenWebUI-User-Name: Ada%20Lovelace\r\nAccept: */*\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\nUser-Agent: Python/3.11 aiohttp/3.12.15\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = connection.send(format!("{head}{body}").as_bytes()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/mpeg")));
    assert!(answer.body.starts_with(&[0xFF]), "{:?}", &answer.body[..4]);
    for list in ["models", "voices"] {
        let request = format!(
            "GET /v1/audio/{list} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32.5\r\n\
             Accept-Encoding: gzip, deflate, br\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
        );
        let answer = connection.send(request.as_bytes()).await;
        assert!(
            answer.json()[list].as_array().unwrap().iter().all(|entry| entry["id"].is_string()),
            "{list}"
        );
    }
}

#[tokio::test]
async fn wyoming_openai_sends_a_recording_with_what_it_adds_for_other_servers() {
    let stack = Stack::start().await;
    let mut connection = Connection::open(&stack).await;
    // `vad_filter` is for Speaches, `temperature` is unset as zero.
    let fields = [
        ("model", "gpt-4o-mini-transcribe"),
        ("response_format", "json"),
        ("stream", "true"),
        ("temperature", "0.0"),
        ("vad_filter", "false"),
    ];
    let body = python_form(&fields, "recording.wav", Some("audio/x-wav"), &wav(32_000));
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept-Encoding: gzip, deflate\r\n\
         Connection: keep-alive\r\nAccept: application/json\r\nUser-Agent: AsyncOpenAI/Python 2.8.1\r\n\
         X-Stainless-Lang: python\r\nX-Stainless-Async: async:asyncio\r\nAuthorization: Bearer unused\r\n\
         x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary={HEX}\r\n\r\n",
        body.len()
    );
    let answer = connection.send(&[head.into_bytes(), body].concat()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    let events = answer.text();
    assert!(events.contains("transcript.text.delta") && events.ends_with("data: [DONE]\n\n"), "{events}");
    assert_eq!(stack.engines[0].seen.lock()[0].field("temperature"), None);
}
