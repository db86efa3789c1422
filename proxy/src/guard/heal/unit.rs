//! Has systemd restart an engine that is a unit, over D-Bus.
//!
//! A life of the unit is named by its invocation id, so that an order about an earlier one hits nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::fdo::PropertiesProxy;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, Proxy};

use crate::config;
use crate::guard::heal::actuator::{self, Instance};
use crate::guard::heal::supervised::{Next, ReadLog, Supervised, Supervisor};

mod error;
mod journal;
mod state;

pub use error::Error;

use state::Seen;

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// Longest wait for systemd's answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to have changes announced.
const RETRY: Duration = Duration::from_secs(1);
/// A signal goes to every process of the unit.
const ALL: &str = "all";
/// A job of ours replaces jobs of the unit that wait.
const REPLACE: &str = "replace";
const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// Takes the engine's unit over, or starts it.
///
/// # Errors
/// When the bus or systemd cannot be reached, there is no such unit, or it does not start.
pub async fn start(
    engine: &config::Engine,
    settings: &config::Unit,
    repair: &config::Repair,
) -> Result<Supervised, actuator::Error> {
    let keeper =
        Keeper { engine: engine.name.clone(), settings: settings.clone(), link: None, restarts: None };
    let settings = settings.clone();
    let read_log: ReadLog = Arc::new(move |invocation| {
        let settings = settings.clone();
        async move { journal::last_words(&settings, &invocation).await }.boxed()
    });
    Supervised::start(&engine.name, keeper, repair, read_log).await
}

/// The way to one unit.
struct Link {
    connection: Connection,
    manager: Proxy<'static>,
    properties: PropertiesProxy<'static>,
    changes: BoxStream<'static, ()>,
}

struct Keeper {
    engine: String,
    settings: config::Unit,
    link: Option<Link>,
    /// Restarts that systemd did by itself, as last seen.
    restarts: Option<u32>,
}

impl Keeper {
    /// The link that stands, or a new one.
    async fn link(&mut self) -> Result<&mut Link, Error> {
        let standing = self.link.take().filter(|link| !link.connection.is_closed());
        let link = match standing {
            Some(link) => link,
            None => match timeout(CALL_TIMEOUT, connect(&self.settings)).await {
                Ok(link) => link?,
                Err(_) => return Err(Error::Silent { what: "find" }),
            },
        };
        Ok(self.link.insert(link))
    }

    async fn read(&mut self) -> Result<Seen, Error> {
        let name = self.settings.name.clone();
        let failed = |source: zbus::fdo::Error| Error::of("look at", &name, source.into());
        let link = self.link().await?;
        let unit = link.properties.get_all(interface(UNIT)?).await.map_err(failed)?;
        let service = link.properties.get_all(interface(SERVICE)?).await.map_err(failed)?;
        let seen = Seen::read(&unit, &service);
        if !seen.loaded {
            return Err(Error::Absent { unit: name });
        }
        if self.restarts.replace(seen.restarts).is_some_and(|before| before < seen.restarts) {
            tracing::warn!(
                engine = self.engine,
                unit = name,
                restarts = seen.restarts,
                "systemd restarts the engine"
            );
        }
        Ok(seen)
    }

    /// Calls a method of systemd's manager.
    async fn order<B: Serialize + DynamicType>(
        &mut self,
        what: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<(), Error> {
        let name = self.settings.name.clone();
        let link = self.link().await?;
        link.manager.call_method(method, body).await.map_err(|source| Error::of(what, &name, source))?;
        Ok(())
    }
}

impl Supervisor for Keeper {
    async fn look(&mut self) -> Result<Option<Instance>, actuator::Error> {
        Ok(Some(self.read().await?.instance))
    }

    async fn changed(&mut self) {
        let next = match &mut self.link {
            Some(link) => link.changes.next().await,
            None => None,
        };
        if next.is_none() {
            sleep(RETRY).await;
        }
    }

    /// systemd ends the unit in the way of its file, and starts it again.
    async fn terminate(&mut self, _instance: &Instance) -> Result<Next, actuator::Error> {
        let name = self.settings.name.clone();
        self.order("restart", "RestartUnit", &(name, REPLACE)).await?;
        Ok(Next::Await)
    }

    async fn kill(&mut self, _instance: &Instance) -> Result<(), actuator::Error> {
        let name = self.settings.name.clone();
        match self.order("kill", "KillUnit", &(name, ALL, SIGKILL)).await {
            Err(Error::NoProcess) => Ok(()),
            result => Ok(result?),
        }
    }

    async fn start(&mut self) -> Result<(), actuator::Error> {
        let name = self.settings.name.clone();
        // How often it may be started is counted by the guard, not by the unit's own limit.
        if let Err(error) = self.order("reset", "ResetFailedUnit", &(name.clone(),)).await {
            tracing::debug!(engine = self.engine, %error, "unit's failures not reset");
        }
        // Not StartUnit: that one is refused while systemd waits to start the unit again by itself.
        Ok(self.order("start", "RestartUnit", &(name, REPLACE)).await?)
    }
}

async fn connect(settings: &config::Unit) -> Result<Link, Error> {
    let name = &settings.name;
    let builder = match (&settings.bus, settings.user) {
        (Some(address), _) => Builder::address(address.as_str()),
        (None, true) => Builder::session(),
        (None, false) => Builder::system(),
    };
    let connection = builder.method_timeout(CALL_TIMEOUT).build().await;
    let connection = connection.map_err(|source| Error::no_bus(settings, source))?;
    let failed = |source| Error::of("find", name, source);
    let manager =
        Proxy::new_owned(connection.clone(), DESTINATION, MANAGER_PATH, MANAGER).await.map_err(failed)?;
    let loaded: Message = manager.call_method("LoadUnit", &(name.as_str(),)).await.map_err(failed)?;
    let path: OwnedObjectPath = loaded.body().deserialize().map_err(failed)?;
    // Without this systemd announces nothing.
    manager.call_method("Subscribe", &()).await.map_err(failed)?;
    let properties = PropertiesProxy::builder(&connection).destination(DESTINATION).path(path);
    let properties = properties.build().await.map_err(failed)?;
    let changes = properties.receive_properties_changed().await.map_err(failed)?.map(|_| ()).boxed();
    Ok(Link { connection, manager, properties, changes })
}

fn interface(name: &'static str) -> Result<zbus::names::InterfaceName<'static>, Error> {
    zbus::names::InterfaceName::try_from(name).map_err(|source| Error::of("look at", name, source))
}
