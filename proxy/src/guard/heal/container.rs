//! Has Docker or Podman restart an engine's container, through the API socket.
//!
//! A container is named by its id and the time of its start, so that an order about an earlier start hits nothing.
//! A container that is there is taken over as it is and never removed; one that is not there is created when the
//! configuration has an image.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::{sleep, timeout};

use crate::config;
use crate::guard::heal::actuator::{self, Instance, MAX_LINES, MAX_WORDS, end_of_log};
use crate::guard::heal::supervised::{Next, ReadLog, Supervised, Supervisor};

mod api;
mod error;
mod inspect;
mod socket;
mod spec;
mod state;

pub use error::Error;

use api::Api;

/// Longest wait for the socket's answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a container to be started: its devices and mounts are made first.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between attempts to have changes announced.
const RETRY: Duration = Duration::from_secs(1);

type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>;

/// Takes the engine's container over, or creates and starts it.
///
/// # Errors
/// When there is no usable socket, no such container and no image to create it from, or it does not start.
pub async fn start(
    engine: &config::Engine,
    settings: &config::Container,
    repair: &config::Repair,
) -> Result<Supervised, actuator::Error> {
    let (docker, socket) = socket::connect(settings).await?;
    tracing::info!(
        engine = engine.name,
        container = settings.name,
        socket = %socket.display(),
        "container engine found"
    );
    let api = Api { engine: engine.name.clone(), settings: settings.clone(), docker, socket };
    api.create_if_absent().await?;
    let (docker, name) = (api.docker.clone(), settings.name.clone());
    let read_log: ReadLog = Arc::new(move |key| {
        let (docker, name) = (docker.clone(), name.clone());
        async move { last_words(&docker, &name, &key).await }.boxed()
    });
    let keeper = Keeper { api, events: None };
    Supervised::start(&engine.name, keeper, repair, read_log).await
}

struct Keeper {
    api: Api,
    events: Option<Events>,
}

impl Supervisor for Keeper {
    async fn look(&mut self) -> Result<Option<Instance>, actuator::Error> {
        Ok(self.api.inspect().await?)
    }

    async fn changed(&mut self) {
        let Api { docker, settings, .. } = &self.api;
        let events = self.events.get_or_insert_with(|| events(docker, &settings.name));
        if !matches!(events.next().await, Some(Ok(_))) {
            self.events = None;
            sleep(RETRY).await;
        }
    }

    async fn terminate(&mut self, instance: &Instance) -> Result<Next, actuator::Error> {
        self.api.signal(instance, "SIGTERM").await?;
        Ok(Next::Start)
    }

    async fn kill(&mut self, instance: &Instance) -> Result<(), actuator::Error> {
        Ok(self.api.signal(instance, "SIGKILL").await?)
    }

    async fn start(&mut self) -> Result<(), actuator::Error> {
        Ok(self.api.start().await?)
    }
}

/// What happens to the container from now on.
fn events(docker: &Docker, name: &str) -> Events {
    let filters = [("type", "container"), ("container", name)];
    let filters = filters.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
    let options = EventsOptionsBuilder::new().filters(&filters.into_iter().collect()).build();
    Box::pin(docker.events(Some(options)))
}

/// The log goes on over the starts of a container: what is older than this instance is not its own.
async fn last_words(docker: &Docker, name: &str, key: &str) -> Option<String> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&MAX_LINES.to_string());
    let options = options.since(state::started(key)).build();
    let mut lines = Box::pin(docker.logs(name, Some(options)));
    let mut log = Vec::new();
    let read = async {
        while let Some(Ok(line)) = lines.next().await {
            log.extend_from_slice(line.as_ref());
            // Long lines: what is kept is the end.
            if let Some(more) = log.len().checked_sub(4 * MAX_WORDS) {
                log.drain(..more);
            }
        }
    };
    let _ = timeout(CALL_TIMEOUT, read).await;
    end_of_log(&log)
}
