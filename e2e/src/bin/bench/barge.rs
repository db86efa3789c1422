//! How soon an engine is free whose speech is not wanted any more: from the client's message to the end of the engine's call.

use anyhow::Result;
use speechstack_e2e::barge::{CUTS, Interrupted};

use crate::meter::{median, percentile};
use crate::report::Table;

const ROUNDS: usize = 12;

/// Measures it on an engine that speaks at the pace of speech.
pub async fn row(table: &mut Table) -> Result<()> {
    let mut speech = Interrupted::start("bench-barge").await?;
    for cut in CUTS {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(speech.freed(cut).await?.as_secs_f64());
        }
        table.row(
            &format!("engine free after {cut}, p95"),
            format!("{:.0} ms", percentile(&times, 0.95) * 1000.0),
            format!("p50 {:.0} ms", median(&times) * 1000.0),
            None,
            "<= 50 ms",
        );
    }
    speech.stop().await
}
