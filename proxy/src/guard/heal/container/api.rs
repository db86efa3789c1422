//! The calls to the container engine about one container.

use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, StartContainerOptions,
};
use tokio::time::timeout;

use crate::config;
use crate::guard::heal::actuator::Instance;
use crate::guard::heal::container::{CALL_TIMEOUT, Error, START_TIMEOUT, inspect, spec, state};

/// Longest wait for the answer to a kill: some container engines answer once the process is gone, which we see ourselves.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to one container.
pub(super) struct Api {
    /// The engine in it.
    pub(super) engine: String,
    /// The container.
    pub(super) settings: config::Container,
    /// The container engine.
    pub(super) docker: Docker,
    /// Its socket.
    pub(super) socket: PathBuf,
}

impl Api {
    /// Creates the container where there is none and the configuration has an image.
    pub(super) async fn create_if_absent(&self) -> Result<(), Error> {
        if self.inspect().await?.is_some() {
            return Ok(());
        }
        let name = &self.settings.name;
        let Some(image) = &self.settings.image else { return Err(Error::Absent { name: name.clone() }) };
        let body = spec::body(&self.engine, &self.settings)?;
        if !self.settings.gpus.is_empty() && self.is_podman().await? {
            tracing::warn!(
                engine = self.engine,
                container = name,
                "this Podman may ignore engines[].container.gpus; if the engine sees no GPU, create the container by \
                 `podman create --device` and leave out the image"
            );
        }
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match self.call("create", self.docker.create_container(Some(options), body)).await {
            Err(Error::Refused { status: 404, .. }) => Err(Error::NoImage { image: image.clone() }),
            Err(error) => Err(error),
            Ok(created) => {
                tracing::info!(engine = self.engine, container = name, id = created.id, "container created");
                for warning in created.warnings {
                    tracing::warn!(engine = self.engine, container = name, warning, "container engine warns");
                }
                Ok(())
            }
        }
    }

    async fn is_podman(&self) -> Result<bool, Error> {
        let version = self.call("find", self.docker.version()).await?;
        Ok(version.components.into_iter().flatten().any(|component| component.name.contains("Podman")))
    }

    /// The engine in the container; `None` when there is none of that name.
    pub(super) async fn inspect(&self) -> Result<Option<Instance>, Error> {
        match timeout(CALL_TIMEOUT, inspect::inspect(&self.socket, &self.settings.name)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Silent { what: "inspect", path: self.socket.clone() }),
        }
    }

    /// Sends a signal to the container of that instance; whether it did anything is for the caller to see.
    pub(super) async fn signal(&self, instance: &Instance, signal: &str) -> Result<(), Error> {
        // By id: a container of that name that was made meanwhile is another one.
        let Some(id) = state::id(&instance.key) else { return Ok(()) };
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let kill = self.call("kill", self.docker.kill_container(id, Some(options)));
        match timeout(KILL_TIMEOUT, kill).await {
            Ok(Err(Error::Refused { status: 404 | 409 | 500.., message, .. })) => {
                tracing::debug!(engine = self.engine, message, "kill not confirmed");
                Ok(())
            }
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        self.within(CALL_TIMEOUT, what, call).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        match timeout(limit, call).await {
            Ok(result) => result.map_err(|source| Error::of(what, &self.socket, source)),
            Err(_) => Err(Error::Silent { what, path: self.socket.clone() }),
        }
    }

    /// Starts the container, which is created first where there is none.
    pub(super) async fn start(&self) -> Result<(), Error> {
        self.create_if_absent().await?;
        let start = self.docker.start_container(&self.settings.name, None::<StartContainerOptions>);
        self.within(START_TIMEOUT, "start", start).await
    }
}
