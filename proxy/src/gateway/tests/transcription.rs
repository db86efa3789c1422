//! Transcriptions: every shape, and nothing sent of what is bad.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use contract::Capability;

use crate::gateway::tests::stack::{Stack, envelope, form, wav};
use crate::job::input::InputHash;

#[tokio::test]
async fn json_is_text_and_usage() {
    let stack = Stack::start().await;
    for path in ["/v1/audio/transcriptions", "/audio/transcriptions"] {
        let response =
            stack.post(path).multipart(form(&[("model", "whisper-1")], wav(48_000))).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["openai-version"], "2020-10-01");
        assert!(response.headers().contains_key("openai-processing-ms"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body, json!({"text": "So it is. Yes.", "usage": {"type": "duration", "seconds": 2}}));
    }
    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!(seen.field("response_format").as_deref(), Some("json"));
    assert_eq!(seen.field("model"), None);
    assert_eq!(seen.headers["x-speechstack-audio-seconds"], "1.500");
}

#[tokio::test]
async fn speakers_come_in_openais_shapes() {
    let stack = Stack::start().await;
    let response =
        stack.transcribe(&[("model", "gpt-4o-transcribe"), ("response_format", "diarized_json")]).await;
    let body: Value = response.json().await.unwrap();
    let segments = body["segments"].as_array().unwrap();
    let speakers: Vec<_> = segments.iter().map(|segment| segment["speaker"].as_str().unwrap()).collect();
    assert_eq!((speakers, &body["text"]), (vec!["A", "B"], &"A: So it is.\nB: Yes.".into()));
    let vtt =
        stack.transcribe(&[("response_format", "vtt"), ("diarize", "true")]).await.text().await.unwrap();
    assert!(vtt.contains("<v A>So it is.") && vtt.contains("<v B>Yes."), "{vtt}");
}

#[tokio::test]
async fn parakeet_fastapis_shape_has_times_when_asked_for() {
    let stack = Stack::start().await;
    let ask = |fields: &[(&'static str, &'static str)], file: Vec<u8>| {
        stack.post("/transcribe").multipart(form(fields, file)).send()
    };
    let body: Value = ask(&[], wav(32_000)).await.unwrap().json().await.unwrap();
    assert_eq!(body, json!({"text": "So it is. Yes.", "timestamps": null}));
    let timed = [("include_timestamps", "true"), ("should_chunk", "true")];
    let body: Value = ask(&timed, wav(32_000)).await.unwrap().json().await.unwrap();
    assert_eq!(body["timestamps"]["word"][0], json!({"word": "So", "start": 0.1, "end": 0.4}));
    assert_eq!(body["timestamps"]["segments"][1]["segment"], "Yes.");
    let part = reqwest::multipart::Part::bytes(b"hello".to_vec()).file_name("a.txt");
    let form = reqwest::multipart::Form::new().part("file", part);
    assert_eq!(stack.post("/transcribe").multipart(form).send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn parakeet_fastapis_configuration_is_shown_on_loopback() {
    let stack = Stack::start().await;
    let text = stack.get("/debug/cfg").await.text().await.unwrap();
    assert!(text.contains("gateway:") && text.contains("body_limit:"), "{text}");
    for (name, value) in [("origin", "https://example.com"), ("host", "example.com")] {
        let request = stack.client.get(format!("{}/debug/cfg", stack.url)).header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 404, "{name}");
    }
}

#[tokio::test]
async fn a_stream_has_deltas_and_an_end() {
    let stack = Stack::start().await;
    let response = stack.transcribe(&[("model", "gpt-4o-transcribe"), ("stream", "true")]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = response.text().await.unwrap();
    assert!(events.contains(r#""delta":"So it is. ""#) && events.ends_with("data: [DONE]\n\n"), "{events}");
    let whisper = stack.transcribe(&[("model", "whisper-1"), ("stream", "true")]).await;
    assert_eq!(whisper.headers()["content-type"], "application/json");
    stack.engines[0].answer(400, &[], "no");
    let refused = stack.transcribe(&[("model", "gpt-4o-transcribe"), ("stream", "true")]).await;
    assert_eq!(refused.status(), 400, "an early error has its status");
}

#[tokio::test]
async fn verbose_json_has_openais_shape() {
    let stack = Stack::start().await;
    let response = stack
        .transcribe(&[
            ("model", "whisper-1"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("timestamp_granularities[]", "segment"),
        ])
        .await;
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["task"], "transcribe");
    assert_eq!(body["language"], "english");
    assert_eq!(body["duration"], 2.5);
    assert_eq!(body["text"], "So it is. Yes.");
    assert_eq!(body["usage"], json!({"type": "duration", "seconds": 3}));
    assert_eq!(body["words"][0], json!({"word": "So", "start": 0.1, "end": 0.4}));
    // The word without times lies between its neighbours.
    assert_eq!(body["words"][2]["word"], "is.");
    assert!(body["words"][2]["start"].as_f64().unwrap() >= 0.7);
    assert!(body["words"][2]["end"].as_f64().unwrap() <= 1.5);
    let segments = body["segments"].as_array().unwrap();
    assert_eq!(
        segments.iter().map(|segment| segment["text"].clone()).collect::<Vec<_>>(),
        ["So it is.", "Yes."]
    );
    let mut keys: Vec<&str> = segments[0].as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "avg_logprob",
            "compression_ratio",
            "end",
            "id",
            "no_speech_prob",
            "seek",
            "start",
            "temperature",
            "text",
            "tokens",
        ]
    );
}

#[tokio::test]
async fn granularities_choose_words_or_segments() {
    let stack = Stack::start().await;
    let verbose = ("response_format", "verbose_json");
    let body: Value = stack.transcribe(&[verbose]).await.json().await.unwrap();
    assert!(body.get("segments").is_some() && body.get("words").is_none());
    let words = ("timestamp_granularities[]", "word");
    let body: Value = stack.transcribe(&[verbose, words]).await.json().await.unwrap();
    assert!(body.get("words").is_some() && body.get("segments").is_none());
}

#[tokio::test]
async fn text_and_subtitles_are_plain() {
    let stack = Stack::start().await;
    let text = stack.transcribe(&[("response_format", "text")]).await;
    assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(text.text().await.unwrap(), "So it is. Yes.\n");
    let srt = stack.transcribe(&[("response_format", "srt")]).await;
    assert_eq!(srt.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(srt.text().await.unwrap().starts_with("1\n00:00:00,100 --> 00:00:01,"));
    let vtt = stack.transcribe(&[("response_format", "vtt")]).await;
    assert_eq!(vtt.headers()["content-type"], "text/vtt; charset=utf-8");
    assert!(vtt.text().await.unwrap().starts_with("WEBVTT\n\n00:00:00.100 --> "));
}

#[tokio::test]
async fn a_large_file_passes_exact_with_its_fields_behind_it() {
    let stack = Stack::start().await;
    let file = wav(3_000_000);
    let form = reqwest::multipart::Form::new()
        .part("file", reqwest::multipart::Part::bytes(file.clone()).file_name("speech.wav"))
        .text("model", "whisper-1")
        .text("language", "German")
        .text("prompt", "Nvidia")
        .text("temperature", "0.5")
        .text("response_format", "verbose_json");
    let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["segments"][0]["id"], 0);
    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!(seen.file(), file);
    assert_eq!(seen.field("language").as_deref(), Some("de"));
    assert_eq!(seen.field("prompt").as_deref(), Some("Nvidia"));
    assert_eq!(seen.field("temperature").as_deref(), Some("0.5"));
    assert_eq!(seen.headers["x-speechstack-audio-seconds"], "93.750");
}

#[tokio::test]
async fn wav_sizes_that_a_streaming_writer_left_open_fit_when_the_engine_gets_them() {
    for (len, open) in [(3_000, 0), (3_000, 0x7FFF_FFFF), (3_000_000, u32::MAX), (3_000_000, 0)] {
        let stack = Stack::start().await;
        let (mut file, sound) = (wav(len), wav(len));
        file[4..8].copy_from_slice(&open.to_le_bytes());
        file[40..44].copy_from_slice(&open.to_le_bytes());
        let response = stack
            .post("/v1/audio/transcriptions")
            .multipart(form(&[("model", "whisper-1")], file))
            .send()
            .await;
        assert_eq!(response.unwrap().status(), 200);
        let sent = stack.engines[0].seen.lock()[0].file();
        assert_eq!(sent.len(), sound.len());
        let size = |at: usize| u32::from_le_bytes(sent[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((size(4), size(40)), (sound.len() - 8, len), "{len} bytes, {open:#x}");
        assert_eq!(sent[44..], sound[44..]);
    }
}

#[tokio::test]
async fn small_bad_uploads_reach_no_engine() {
    let stack = Stack::start().await;
    type Fields = &'static [(&'static str, &'static str)];
    let cases: [(Fields, u16, &str); 9] = [
        (&[("model", "gpt-5")], 404, "model"),
        (&[("model", "tts-1")], 400, "model"),
        (&[("response_format", "aac")], 400, "response_format"),
        (&[("stream", "true"), ("response_format", "srt")], 400, "stream"),
        (&[("include[]", "logprobs")], 400, "include"),
        (&[("temperature", "hot")], 400, "temperature"),
        (&[("language", "klingon")], 400, "language"),
        (&[("timestamp_granularities[]", "word")], 400, "timestamp_granularities"),
        (
            &[("timestamp_granularities[]", "char"), ("response_format", "verbose_json")],
            400,
            "timestamp_granularities",
        ),
    ];
    for (fields, status, param) in cases {
        envelope(stack.transcribe(fields).await, status, Some(param)).await;
    }
    for (file, name) in [(Vec::new(), "a.wav"), (b"hello".to_vec(), "a.txt"), (b"hello".to_vec(), "a.wav")] {
        let part = reqwest::multipart::Part::bytes(file).file_name(name);
        let form = reqwest::multipart::Form::new().part("file", part);
        let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
        envelope(response, 400, Some("file")).await;
    }
    let form = reqwest::multipart::Form::new().text("model", "whisper-1");
    let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    envelope(response, 400, Some("file")).await;
    let response = stack.post("/v1/audio/transcriptions").json(&json!({})).send().await.unwrap();
    envelope(response, 400, None).await;
    assert_eq!(stack.engines[0].begun(), 0);
}

#[tokio::test]
async fn a_late_bad_field_of_a_large_upload_completes_at_no_engine() {
    let stack = Stack::start().await;
    let form = reqwest::multipart::Form::new()
        .part("file", reqwest::multipart::Part::bytes(wav(3_000_000)).file_name("speech.wav"))
        .text("model", "gpt-5");
    let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    envelope(response, 404, Some("model")).await;
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn too_large_is_said_at_once_or_when_it_is_seen() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.gateway.body_limit = bytesize::ByteSize::mib(1);
    })
    .await;
    let announced =
        stack.post("/v1/audio/transcriptions").multipart(form(&[], wav(3_000_000))).send().await.unwrap();
    envelope(announced, 413, Some("file")).await;
    assert_eq!(stack.engines[0].begun(), 0);
    let mut body =
        b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
    body.extend(wav(3_000_000));
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
        body.chunks(100_000).map(|chunk| Ok(chunk.to_vec())).collect();
    let streamed = stack
        .post("/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(reqwest::Body::wrap_stream(futures::stream::iter(chunks)))
        .send()
        .await
        .unwrap();
    envelope(streamed, 413, Some("file")).await;
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn a_truncated_upload_is_a_client_error_and_completes_at_no_engine() {
    let stack = Stack::start().await;
    for bytes in [1000, 1_000_000] {
        let mut body =
            b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
        body.extend(wav(bytes));
        let response = stack
            .post("/v1/audio/transcriptions")
            .header("content-type", "multipart/form-data; boundary=x")
            .body(body)
            .send()
            .await
            .unwrap();
        envelope(response, 400, Some("file")).await;
    }
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_amid_its_upload_leaves_nothing_complete() {
    let stack = Stack::start().await;
    let mut socket = TcpStream::connect(stack.address).await.unwrap();
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\
        content-type: multipart/form-data; boundary=x\r\n\r\n\
        --x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&wav(500_000)).await.unwrap();
    while stack.engines[0].begun() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(socket);
    stack.transcribe(&[]).await;
    assert_eq!(stack.complete(), 1);
}

#[tokio::test]
async fn a_client_that_stops_sending_gets_408_and_holds_no_engine() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.gateway.connections.body_timeout = Duration::from_millis(300);
    })
    .await;
    for (path, kind, part) in [
        ("transcriptions", "multipart/form-data; boundary=x", "--x\r\n"),
        ("speech", "application/json", "{\"model\":"),
    ] {
        let mut socket = TcpStream::connect(stack.address).await.unwrap();
        let request = format!(
            "POST /v1/audio/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\ncontent-type: {kind}\r\n\r\n{part}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(head.as_slice(), b"HTTP/1.1 408", "{path}");
    }
    assert_eq!(stack.engines[0].begun(), 0);
}

#[tokio::test]
async fn the_client_gets_100_continue_only_after_its_head_was_accepted() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.gateway.body_limit = bytesize::ByteSize::mib(1);
    })
    .await;
    for (len, expected) in [(2_000_000, "HTTP/1.1 413"), (1000, "HTTP/1.1 100")] {
        let mut socket = TcpStream::connect(stack.address).await.unwrap();
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\
             expect: 100-continue\r\ncontent-type: multipart/form-data; boundary=x\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(std::str::from_utf8(&start).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_sick_engine_costs_the_client_nothing_while_another_lives() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    for engine in &stack.engines {
        let headers = [("x-speechstack-class", "A"), ("x-speechstack-retry", "elsewhere")];
        engine.answer(500, &headers, "CUBLAS_STATUS_EXECUTION_FAILED");
        let file = wav(500_000);
        let response =
            stack.post("/v1/audio/transcriptions").multipart(form(&[], file.clone())).send().await.unwrap();
        assert_eq!(response.status(), 200);
        engine.canned.lock().clear();
        for engine in &stack.engines {
            for seen in engine.seen.lock().drain(..) {
                assert_eq!(seen.file(), file);
            }
        }
    }
}

#[tokio::test]
async fn what_wedged_engines_before_reaches_none() {
    let stack = Stack::start().await;
    for len in [1000, 1_000_000] {
        let file = wav(len);
        let hash = InputHash::of(&file).to_string();
        stack.engines[0].incidents(&hash, 2);
        // The report takes a moment to arrive.
        let deadline = Instant::now() + Duration::from_secs(30);
        let response = loop {
            assert!(Instant::now() < deadline, "the input is not refused");
            let response = stack
                .post("/v1/audio/transcriptions")
                .multipart(form(&[], file.clone()))
                .send()
                .await
                .unwrap();
            if response.status() != 200 {
                break response;
            }
            stack.engines[0].seen.lock().clear();
        };
        envelope(response, 422, Some("file")).await;
        assert_eq!(stack.complete(), 0);
    }
}

#[tokio::test]
async fn a_connection_serves_on_after_a_chunked_upload() {
    let stack = Stack::start().await;
    let mut socket = TcpStream::connect(stack.address).await.unwrap();
    for len in [1000, 500_000, 1000] {
        let mut body =
            b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
        body.extend(wav(len));
        body.extend(b"\r\n--x--\r\nepilogue");
        let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
            content-type: multipart/form-data; boundary=x\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
        socket.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"}") {
            assert!(socket.read_buf(&mut reply).await.unwrap() > 0);
        }
        assert!(reply.starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_asked_for_again() {
    let stack = Stack::start().await;
    let file = wav(500_000);
    for breaks in [1, 2] {
        for _ in 0..breaks {
            let sender = stack.engines[0].stream();
            tokio::spawn(async move {
                sender.send(Ok("{\"text\":".into())).await.unwrap();
                sender.send(Err(std::io::ErrorKind::BrokenPipe.into())).await.unwrap();
            });
        }
        let request = stack.post("/v1/audio/transcriptions").multipart(form(&[], file.clone()));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), if breaks == 1 { 200 } else { 503 });
    }
    assert!(stack.engines[0].seen.lock().iter().all(|seen| seen.file() == file));
}

#[tokio::test]
async fn an_engines_refusal_is_passed_on_and_its_nonsense_is_not() {
    let stack = Stack::start().await;
    stack.engines[0].answer(400, &[], r#"{"detail":"could not decode the file"}"#);
    assert_eq!(envelope(stack.transcribe(&[]).await, 400, Some("file")).await, "could not decode the file");
    stack.engines[0].answer(200, &[], "<html>");
    stack.engines[0].answer(200, &[], "<html>");
    envelope(stack.transcribe(&[]).await, 503, None).await;
}

#[tokio::test]
async fn without_an_engine_the_client_gets_retry_after() {
    let stack = Stack::with(&[Capability::Tts], |_| {}).await;
    let response = stack.transcribe(&[]).await;
    assert_eq!(response.headers()["x-should-retry"], "true");
    assert!(response.headers().contains_key("retry-after"));
    envelope(response, 503, None).await;
}
