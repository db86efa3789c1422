//! A transcription in the background of the gateway.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::args::Format;
use crate::client::Client;
use crate::error::Error;

/// First and longest wait between two looks at a job.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// A job, as far as it is shown.
#[derive(Debug, Deserialize)]
pub struct Job {
    pub id: String,
    /// `queued`, `running`, `succeeded`, `failed`, `canceled`.
    pub status: String,
    pub model: Option<String>,
    /// Seconds of audio, once they are known.
    pub duration: Option<f64>,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// Jobs ahead.
    pub queue_position: Option<u64>,
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    message: String,
}

impl Job {
    /// Waits for its end and shows each change.
    ///
    /// # Errors
    /// When it failed or was ended, or the gateway is gone for good.
    pub async fn ended(mut self, client: &Client, show: impl Fn(&Self)) -> Result<Self, Error> {
        let mut wait = FIRST_LOOK;
        loop {
            show(&self);
            match self.status.as_str() {
                "queued" | "running" => {}
                "succeeded" => return Ok(self),
                _ => return Err(self.failure()),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 3 / 2).min(LAST_LOOK);
            self = client.json("a job", &format!("/v1/audio/jobs/{}", self.id)).await?;
        }
    }

    fn failure(&self) -> Error {
        let reason = match &self.error {
            Some(error) => error.message.clone(),
            None => format!("is {}", self.status),
        };
        Error::Job { id: self.id.clone(), reason }
    }
}

/// The transcript of a job.
///
/// # Errors
/// When there is none.
pub async fn result(client: &Client, id: &str, format: Format) -> Result<String, Error> {
    let (format, words) = match format {
        Format::Txt => ("text", ""),
        Format::Srt => ("srt", ""),
        Format::Vtt => ("vtt", ""),
        Format::Json => ("verbose_json", "&timestamp_granularities[]=word&timestamp_granularities[]=segment"),
    };
    let path = format!("/v1/audio/jobs/{id}/result?response_format={format}{words}");
    let response = client.call(Method::GET, &path).await?;
    client.text(response).await
}
