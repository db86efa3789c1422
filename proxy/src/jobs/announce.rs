//! Calls the webhooks of jobs that ended.

use jiff::Timestamp;
use serde_json::json;

use super::webhook::{self, Delivery};
use super::{Jobs, Record, now};

impl Jobs {
    /// Begins to call the webhook of an ended job, if it has one.
    pub(super) fn notify(&self, job: &Record) {
        if job.is_unannounced() {
            let (jobs, id) = (self.clone(), job.id.clone());
            tokio::spawn(async move { jobs.announce(&id).await });
        }
    }

    /// Delivers the message about a job until it is taken, the receiver wants none, or the tries are used up.
    async fn announce(&self, id: &str) {
        let mut attempts = 0;
        loop {
            let known = self.inner.state.lock().jobs.get(id).cloned();
            let Some(job) = known.filter(|job| self.announces(job)) else { return };
            let (Some(webhook), Some(key)) = (&job.webhook, &self.inner.key) else { return };
            let config = self.settings().webhooks;
            // More than the record has, when a try could not be noted.
            attempts = webhook.attempts.max(attempts);
            if attempts > 0 {
                tokio::time::sleep(webhook::wait(attempts, &config)).await;
            }
            // The configuration may have changed since the job was made.
            let delivery = match webhook::is_allowed(&webhook.url, &config.allow) {
                true => {
                    let (body, seconds) = (message(&job), now() / 1000);
                    let sent =
                        webhook::deliver(&self.inner.client, key, &webhook.url, &job.id, seconds, &body);
                    tokio::time::timeout(config.timeout, sent).await.unwrap_or(Delivery::Failed)
                }
                false => Delivery::Gone,
            };
            attempts += 1;
            let delivered = match delivery {
                Delivery::Taken => Some(true),
                Delivery::Gone => Some(false),
                Delivery::Failed => (attempts >= config.attempts).then_some(false),
            };
            self.inner.metrics.delivery(delivery == Delivery::Taken);
            let noted = self.update(id, |job| {
                let is_ours = self.announces(job);
                if let Some(webhook) = job.webhook.as_mut().filter(|_| is_ours) {
                    (webhook.attempts, webhook.delivered) = (attempts, delivered);
                }
                is_ours
            });
            // What is not noted is at worst sent twice, and receivers know messages by their id.
            let _ = noted.await;
            if delivered.is_some() {
                return;
            }
        }
    }

    fn announces(&self, job: &Record) -> bool {
        job.is_unannounced() && job.gateway.as_ref() == Some(&self.inner.gateway)
    }
}

/// The message to a webhook: how the job ended, without its text.
fn message(job: &Record) -> String {
    let ended = job.ended.and_then(|ended| Timestamp::from_millisecond(i64::try_from(ended).ok()?).ok());
    let data = json!({
        "id": job.id, "object": "audio.job", "status": job.status, "error": job.failure.as_ref().map(|failure| &failure.error),
        "result_url": format!("/v1/audio/jobs/{}/result", job.id),
    });
    let kind = format!("audio.job.{}", job.status.as_str());
    json!({"type": kind, "timestamp": ended.map(|ended| ended.to_string()), "data": data}).to_string()
}
