//! Sessions whose engines die meanwhile, and engines that hear speech as it comes.

use super::*;

#[tokio::test]
async fn no_word_is_lost_when_the_engine_of_a_session_is_killed() -> Result<()> {
    let options =
        StackOptions { engines: vec![EngineOptions::new("parakeet-0", "stt")], ..options("stream-killed") };
    let stack = Stack::start(options).await?;
    let mut socket = realtime(&stack, json!({"type": "server_vad", "silence_duration_ms": 500})).await?;
    let clip = [spoken(SENTENCE)?, silence(1.0)].concat();
    for at in 0..6 {
        if at == 2 {
            stack.kill_engine("parakeet-0")?;
        }
        socket.send(&append(&clip)).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for _ in 0..6 {
        let completed = socket.until(COMPLETED).await?.pop().context("no text")?;
        ensure!(word_error(SENTENCE, text(&completed, "transcript")) <= 0.3, "{completed}");
    }
    stack.stop().await
}

/// Each sentence goes to an engine while it is spoken. The engines are killed in turn in the middle of one.
#[tokio::test]
async fn engines_that_stream_hear_speech_as_it_comes_and_another_takes_over() -> Result<()> {
    let engine = |name| EngineOptions { protocols: &["riva_streaming"], ..EngineOptions::new(name, "stt") };
    let engines = vec![engine("asr-0"), engine("asr-1")];
    let stack = Stack::start(StackOptions { engines, ..options("stream-native") }).await?;
    let mut socket = realtime(&stack, json!({"type": "server_vad", "silence_duration_ms": 500})).await?;
    let (first, second) = (spoken(SENTENCE)?, spoken(OTHER)?);
    for turn in 0..4 {
        let (samples, sentence) = if turn % 2 == 0 { (&first, SENTENCE) } else { (&second, OTHER) };
        let audio = [silence(0.3), samples.clone(), silence(1.0)].concat();
        let half = audio.len() / 2;
        if turn % 2 == 1 {
            // Text so far: an engine hears it. Its client then pauses, which is no fault of the engine.
            for piece in audio[..half].chunks(1_600) {
                socket.send(&append(piece)).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            socket.until(DELTA).await?;
            let name = hearing(&stack).await?;
            stack.kill_engine(&name)?;
        } else {
            socket.send(&append(&audio[..half])).await?;
        }
        socket.send(&append(&audio[half..])).await?;
        let completed = socket.until(COMPLETED).await?.pop().context("no text")?;
        ensure!(word_error(sentence, text(&completed, "transcript")) <= 0.3, "{completed}");
    }
    let metrics = stack.admin.get("/metrics").await?.text();
    ensure!(metrics.contains(r#"decodes_total{kind="live",result="ok"} 4"#), "{metrics}");
    ensure!(!metrics.contains(r#"decodes_total{kind="partial""#), "{metrics}");
    stack.stop().await
}

/// The engine that hears a stream.
async fn hearing(stack: &Stack) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        for name in ["asr-0", "asr-1"] {
            if stack.measured(name, "speechstack_guard_lane_streams", &[]).await? > 0.0 {
                return Ok(name.to_owned());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no engine hears a stream")
}
