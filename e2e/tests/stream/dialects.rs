//! Dialects of other servers, by their own clients, or raw where there is none.

use super::*;

#[tokio::test]
async fn clients_of_other_servers_work() -> Result<()> {
    contract("stream-dialects", "dialects.py").await
}

#[tokio::test]
async fn gemmavoices_clients_send_recordings_files_and_texts() -> Result<()> {
    let stack = Stack::start(options("stream-gemma")).await?;
    let file = say(&[("rms", SENTENCE)])?;
    let mut socket = Socket::connect(&stack.url, "/v1/speech-to-text/stream", &[]).await?;
    ensure!(socket.json().await?["event"] == "ready");
    socket.send(&json!({"event": "config", "language": "en"})).await?;
    ensure!(socket.json().await?["event"] == "configured");
    for piece in file.chunks(8_001) {
        socket.send_binary(piece.to_vec()).await?;
    }
    socket.send(&json!({"event": "stop"})).await?;
    let (mut last, mut got) = (Value::Null, socket.next().await?);
    while let Got::Json(message) = got {
        ensure!(message["event"] != "error", "{message}");
        last = message;
        got = socket.next().await?;
    }
    ensure!(got == Got::Closed(1000, String::new()), "{got:?}");
    ensure!(last["event"] == "final" && last["data"]["is_final"] == true, "{last}");
    let error = word_error(SENTENCE, text(&last["data"], "text"));
    ensure!(error <= 0.3, "word error {error:.2}: {last}");

    let mut socket = Socket::connect(&stack.url, "/v1/speech-to-text/ws", &[]).await?;
    socket.send_binary(file.clone()).await?;
    ensure!(socket.json().await? == json!({"event": "received", "bytes": file.len()}));
    socket.send(&json!({"event": "commit", "language": "en"})).await?;
    let transcript = socket.json().await?;
    ensure!(transcript["event"] == "transcript", "{transcript}");
    ensure!(word_error(SENTENCE, text(&transcript["data"], "text")) <= 0.3, "{transcript}");
    ensure!(transcript["data"]["segments"][0]["text"].is_string(), "{transcript}");

    let mut socket = Socket::connect(&stack.url, "/v1/text-to-speech/ws", &[]).await?;
    socket.send(&json!({"text": SENTENCE, "format": "pcm"})).await?;
    ensure!(socket.json().await?["event"] == "metadata");
    let mut audio = Vec::new();
    loop {
        let frame = socket.json().await?;
        match text(&frame, "event") {
            "audio_chunk" => audio.extend(STANDARD.decode(text(&frame["data"], "audio_base64"))?),
            "done" => break,
            other => anyhow::bail!("{other}: {frame}"),
        }
    }
    let measure = Measure::of_pcm(&audio, 24_000);
    ensure!((1.0..6.0).contains(&measure.seconds) && measure.level > 0.01, "{measure:?}");
    stack.stop().await
}
