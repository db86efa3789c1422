//! How soon an answer is heard: the stages from the end of a question to the first sound of its answer.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use speechstack_e2e::client::say;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};

use crate::meter::{median, percentile};
use crate::report::Table;

const ROUNDS: usize = 20;
const QUESTION: &str = "Please call me back tomorrow morning at nine.";

/// Asks the reference engines over and over; their language model answers from templates, at once.
pub async fn all() -> Result<Table> {
    let mut table = Table::default();
    let engines = [("stt-0", "stt"), ("tts-0", "tts"), ("llm-0", "llm")];
    let engines = engines.map(|(name, kind)| EngineOptions::new(name, kind)).into();
    let stack = Stack::start(StackOptions { engines, ..StackOptions::new("bench-answer") }).await?;
    let clip = say(&[("slt", QUESTION)])?;
    let mut stages: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let heard = stack.client.transcribe("question.wav", clip.clone(), "json").await?;
        ensure!(heard.status == 200, "{}", heard.text());
        let heard = begun.elapsed().as_secs_f64() * 1e3;
        let path = "/v1/conversation/dialogue";
        let reply = stack.client.upload(path, "question.wav", clip.clone(), &[]).await?.json()?;
        let of = |stage: &str| {
            let millis = reply["timings"][stage].as_f64();
            millis.with_context(|| format!("no {stage}: {}", reply["timings"]))
        };
        let (text, audio) = (of("first_text_ms")?, of("first_audio_ms")?);
        for (stage, ms) in stages.iter_mut().zip([heard, text, audio - text, heard + audio]) {
            stage.push(ms);
        }
    }
    let names = ["question heard", "then the answer's first words", "then its first sound", "voice to voice"];
    for (name, stage) in names.iter().zip(&stages) {
        let (p50, p95) = (median(stage), percentile(stage, 0.95));
        table.row(name, format!("p50 {p50:.0} ms, p95 {p95:.0} ms"), "-".to_owned(), None, "-");
    }
    stack.stop().await?;
    Ok(table)
}
