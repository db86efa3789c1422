//! The `jobs` subcommand.

use std::io::Write;

use indicatif::ProgressBar;
use reqwest::Method;
use serde::Deserialize;

use crate::args::{JobCommand, Jobs};
use crate::client::Client;
use crate::error::Error;
use crate::files::print;
use crate::job::{Job, result};
use crate::transcribe::bars::{self, Bars};

/// A page of jobs.
#[derive(Deserialize)]
struct List {
    data: Vec<Job>,
    has_more: bool,
}

/// Does what is asked of jobs.
///
/// # Errors
/// When the gateway refuses.
pub async fn run(client: &Client, order: &Jobs, quiet: bool) -> Result<(), Error> {
    match order.command.as_ref().unwrap_or(&JobCommand::List { limit: 20 }) {
        JobCommand::List { limit } => list(client, *limit).await,
        JobCommand::Wait { id, format } => {
            let bar = Bars::new(quiet).add(id);
            let job: Job = client.json("a job", &format!("/v1/audio/jobs/{id}")).await?;
            let ended = job.ended(client, |job| bars::job(&bar, job)).await;
            ProgressBar::finish_and_clear(&bar);
            let job = ended?;
            print(&result(client, &job.id, *format).await?)
        }
        JobCommand::Result { id, format } => print(&result(client, id, *format).await?),
        JobCommand::Cancel { ids } => {
            for id in ids {
                client.call(Method::POST, &format!("/v1/audio/jobs/{id}/cancel")).await?;
            }
            Ok(())
        }
        JobCommand::Delete { ids } => {
            for id in ids {
                client.call(Method::DELETE, &format!("/v1/audio/jobs/{id}")).await?;
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, limit: u16) -> Result<(), Error> {
    let list: List = client.json("the list of jobs", &format!("/v1/audio/jobs?limit={limit}")).await?;
    let mut out = std::io::stdout().lock();
    for job in &list.data {
        let model = job.model.as_deref().unwrap_or("-");
        writeln!(out, "{}  {:<9}  {:<8}  {}", job.id, job.status, state(job), model)?;
    }
    if list.has_more {
        writeln!(out, "(there are more: --limit)")?;
    }
    Ok(())
}

/// How far a job is.
fn state(job: &Job) -> String {
    match (job.status.as_str(), job.progress, job.queue_position) {
        ("queued", _, Some(ahead)) => format!("{ahead} ahead"),
        ("running", Some(progress), _) => format!("{:.0} %", progress * 100.0),
        (_, _, _) => job.duration.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s")),
    }
}
