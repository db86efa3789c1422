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

#[tokio::test]
async fn engines_that_stream_hear_speech_as_it_comes_and_another_takes_over() -> Result<()> {
    another_takes_over("stream-native", &["riva_streaming"], quick_policy(), |_| Fault::Kill).await?;
    Ok(())
}

/// A guard gives an engine far longer than a speaker waits.
#[tokio::test]
async fn an_overdue_text_is_asked_of_another_engine_before_the_guard_judges() -> Result<()> {
    let fault = |turn| if turn == 1 { Fault::Mode("F7") } else { Fault::Kill };
    let mut guard = quick_policy();
    guard["hang"] = json!({"floor": "20s", "deadline_floor": "20s"});
    let metrics = another_takes_over("stream-overdue", &["nim_realtime"], guard, fault).await?;
    ensure!(!metrics.contains(r#"hedges_total{capability="stt",result="won"} 0"#), "{metrics}");
    // The one that was killed.
    ensure!(!metrics.contains(r#"attempts_total{capability="stt",outcome="broken"} 2"#), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn engines_of_nim_realtime_hear_speech_as_it_comes_and_another_takes_over() -> Result<()> {
    let fault = |turn| if turn == 1 { Fault::Mode("F1") } else { Fault::Kill };
    another_takes_over("stream-nim", &["nim_realtime", "nim_http"], quick_policy(), fault).await?;
    Ok(())
}

#[tokio::test]
async fn engines_of_nemo_speech_hear_speech_as_it_comes_and_another_takes_over() -> Result<()> {
    let fault = |turn| if turn == 1 { Fault::Mode("F1") } else { Fault::Mode("F7") };
    let protocols = &["nemo_speech", "nemo_speech_streaming"];
    another_takes_over("stream-nemo", protocols, quick_policy(), fault).await?;
    Ok(())
}

/// What befalls an engine in the middle of a sentence.
enum Fault {
    Kill,
    Mode(&'static str),
}

/// Each sentence goes to an engine while it is spoken. The engine of each second one fails in its middle. What the gateway
/// measured.
async fn another_takes_over(
    name: &str,
    protocols: &'static [&'static str],
    guard: Value,
    fault: impl Fn(usize) -> Fault,
) -> Result<String> {
    let engine = |name| EngineOptions { protocols, ..EngineOptions::new(name, "stt") };
    let engines = vec![engine("asr-0"), engine("asr-1")];
    let stack = Stack::start(StackOptions { engines, guard, ..options(name) }).await?;
    let mut socket = realtime(&stack, json!({"type": "server_vad", "silence_duration_ms": 500})).await?;
    let (first, second) = (spoken(SENTENCE)?, spoken(OTHER)?);
    let mut deltas = 0;
    for turn in 0..4 {
        let (samples, sentence) = if turn % 2 == 0 { (&first, SENTENCE) } else { (&second, OTHER) };
        let audio = [silence(0.3), samples.clone(), silence(1.0)].concat();
        let half = audio.len() / 2;
        if turn % 2 == 1 {
            stack.healthy().await?;
            // Text so far: an engine hears it. Its client then pauses, which is no fault of the engine.
            for piece in audio[..half].chunks(1_600) {
                socket.send(&append(piece)).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // A busy machine may have no text yet.
            let told = tokio::time::timeout(Duration::from_secs(3), socket.until(DELTA)).await;
            deltas += usize::from(matches!(told, Ok(Ok(_))));
            let name = hearing(&stack).await?;
            match fault(turn) {
                Fault::Kill => stack.kill_engine(&name)?,
                Fault::Mode(mode) => stack.arm(&name, &json!({"mode": mode})).await?,
            }
        } else {
            socket.send(&append(&audio[..half])).await?;
        }
        socket.send(&append(&audio[half..])).await?;
        let mut events = socket.until(COMPLETED).await?;
        let completed = events.pop().context("no text")?;
        ensure!(word_error(sentence, text(&completed, "transcript")) <= 0.3, "{completed}");
        deltas += events.iter().filter(|event| event["type"] == DELTA).count();
    }
    ensure!(deltas > 0, "no text came while it was spoken");
    let metrics = stack.admin.get("/metrics").await?.text();
    ensure!(metrics.contains(r#"decodes_total{kind="live",result="ok"} 4"#), "{metrics}");
    ensure!(!metrics.contains(r#"decodes_total{kind="partial""#), "{metrics}");
    stack.stop().await?;
    Ok(metrics)
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
