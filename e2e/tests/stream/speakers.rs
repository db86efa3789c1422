//! Live speakers: a voice keeps its number through a session, whatever the engine calls it from segment to segment.

use super::*;

/// The subprotocols by which NVIDIA's client is known.
const NIM: (&str, &str) = ("sec-websocket-protocol", "realtime, realtime-token.none");

/// 16 kHz PCM of a sentence in a voice.
fn voiced(voice: &'static str, text: &str) -> Result<Vec<i16>> {
    let file = say(&[(voice, text)])?;
    let at = file.windows(4).position(|four| four == b"data").context("no samples in the file")?;
    Ok(file[at + 8..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// Two voices in turn, with pauses that end segments.
fn dialogue() -> Result<Vec<Vec<i16>>> {
    let turns = [("rms", SENTENCE), ("slt", OTHER), ("rms", OTHER), ("slt", SENTENCE)];
    turns
        .into_iter()
        .map(|(voice, sentence)| Ok([silence(0.4), voiced(voice, sentence)?, silence(1.2)].concat()))
        .collect()
}

/// Of each turn of the dialogue one number; the same for the same voice.
fn check(speakers: &[Value]) -> Result<()> {
    let [first, second, third, fourth] = speakers else {
        anyhow::bail!("{} segments: {speakers:?}", speakers.len())
    };
    ensure!(first == third && second == fourth && first != second, "{speakers:?}");
    Ok(())
}

#[tokio::test]
async fn voices_keep_their_numbers_in_every_dialect_that_shows_them() -> Result<()> {
    let stack = Stack::start(options("stream-speakers")).await?;

    let mut nim = Socket::connect(&stack.url, "/v1/realtime?intent=transcription", &[NIM]).await?;
    nim.until("conversation.created").await?;
    nim.send(&json!({"type": "transcription_session.update", "session": {
        "input_audio_params": {"sample_rate_hz": 16000, "num_channels": 1},
        "input_audio_transcription": {"language": "en-US"},
        "recognition_config": {"enable_word_time_offsets": true},
        "speaker_diarization": {"enable_speaker_diarization": true, "max_speaker_count": 4},
    }}))
    .await?;
    nim.until("transcription_session.updated").await?;
    let mut speakers = Vec::new();
    for turn in dialogue()? {
        nim.send(&append(&turn)).await?;
        let completed = nim.until(COMPLETED).await?.pop().context("no text")?;
        let words = completed["words_info"]["words"].as_array().context("no words")?;
        ensure!(!words.is_empty(), "{completed}");
        speakers.push(most(words.iter().map(|word| word["speaker_tag"].clone())));
    }
    check(&speakers)?;
    ensure!(speakers[0] == 1 && speakers[1] == 2, "numbers are from 1, in order: {speakers:?}");

    let mut deepgram = Socket::connect(&stack.url, "/v1/listen?diarize=true&sample_rate=16000", &[]).await?;
    let mut speakers = Vec::new();
    for turn in dialogue()? {
        deepgram.send_binary(pcm16(&turn)).await?;
        let results = deepgram.until("Results").await?.pop().context("no results")?;
        let words = results["channel"]["alternatives"][0]["words"].as_array().context("no words")?;
        ensure!(!words.is_empty(), "{results}");
        speakers.push(most(words.iter().map(|word| word["speaker"].clone())));
    }
    check(&speakers)?;
    stack.stop().await
}

#[tokio::test]
async fn tldw_sums_its_speakers_up() -> Result<()> {
    let stack = Stack::start(options("stream-summary")).await?;
    let mut socket = Socket::connect(&stack.url, "/core/parakeet/stream", &[]).await?;
    socket
        .send(&json!({"type": "config", "sample_rate": 16000, "audio_format": "pcm16", "diarization": true,
            "enable_partial": false, "chunk_duration": 4.0}))
        .await?;
    let states = socket.until("status").await?;
    ensure!(states.last().is_some_and(|state| state["state"] == "diarization_enabled"), "{states:?}");
    let audio = [voiced("rms", SENTENCE)?, silence(1.0)].concat();
    socket.send(&json!({"type": "audio", "data": STANDARD.encode(pcm16(&audio))})).await?;
    socket.send(&json!({"type": "commit"})).await?;
    let last = socket.until("final").await?.pop().context("no final")?;
    ensure!(last["speaker_id"] == 0 && last["speaker_label"] == "SPEAKER_00", "{last}");
    socket.until("full_transcript").await?;
    let summary = socket.json().await?;
    ensure!(summary["type"] == "diarization_summary", "{summary}");
    ensure!(summary["speaker_map"][0]["segment_id"] == last["segment_id"], "{summary}");
    ensure!(summary["speakers"][0]["speaker_label"] == "SPEAKER_00", "{summary}");
    stack.stop().await
}

/// The most frequent of the values.
fn most(values: impl Iterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.collect();
    let count = |value: &Value| values.iter().filter(|other| *other == value).count();
    values.iter().max_by_key(|value| count(value)).cloned().unwrap_or_default()
}
