//! Who else may run an engine: a container engine (Docker, Podman) or systemd.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Longest name of a container or unit; both have such a limit of their own.
const MAX_NAME: usize = 255;

/// The container of one engine, and how to create it if it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name or id.
    pub name: String,
    /// Which container engine runs it.
    #[serde(default)]
    pub engine: ContainerEngine,
    /// The container engine's API socket; looked for when unset.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Image to create it from; when unset a container that is not there is an error.
    #[serde(default)]
    pub image: Option<String>,
    /// Arguments in place of the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment whose values are the contents of these files, without the end of line.
    #[serde(default)]
    pub env_files: BTreeMap<String, PathBuf>,
    /// Published ports: `[address:]port:container_port`, TCP; the address is 127.0.0.1 when left out.
    #[serde(default)]
    pub ports: Vec<String>,
    /// `bridge`, `host` or the name of a network; the container engine's default when unset.
    #[serde(default)]
    pub network: Option<String>,
    /// `all`, device indices or UUIDs, or names of the Container Device Interface such as `nvidia.com/gpu=0`.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// Mounts: `source:target[:options]`, the source a folder or a volume's name.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Size of `/dev/shm`.
    #[serde(default)]
    pub shm_size: Option<ByteSize>,
    /// `user[:group]` inside the container.
    #[serde(default)]
    pub user: Option<String>,
    /// Limits such as `nofile`, soft and hard alike.
    #[serde(default)]
    pub ulimits: BTreeMap<String, u32>,
}

/// A container engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerEngine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Whichever has a socket here, Docker first.
    #[default]
    Auto,
}

/// A port of a container that the host publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address.
    pub address: IpAddr,
    /// The host's port.
    pub port: u16,
    /// The container's port.
    pub inner: u16,
}

impl Container {
    /// The published ports, in the order of the configuration.
    ///
    /// # Errors
    /// Field and reason of the first that cannot be.
    pub fn published(&self) -> Result<Vec<Published>, (&'static str, String)> {
        let invalid = |text: &String| {
            let reason = format!("has {text:?}, which is not [address:]port:container_port");
            ("engines[].container.ports", reason)
        };
        self.ports.iter().map(|text| published(text).ok_or_else(|| invalid(text))).collect()
    }

    /// Field and reason of what cannot be.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(reason) = bad_name(&self.name) {
            return Some(("engines[].container.name", reason));
        }
        if self.image.is_none()
            && let Some(field) = self.creation_field()
        {
            let reason = "needs engines[].container.image: only a container that is created here takes it";
            return Some((field, reason.to_owned()));
        }
        if self.image.as_ref().is_some_and(String::is_empty) {
            return Some(("engines[].container.image", "is empty".to_owned()));
        }
        if let Some(name) = self.env_files.keys().find(|name| self.env.contains_key(*name)) {
            let reason = format!("has {name}, which engines[].container.env sets too: remove one of the two");
            return Some(("engines[].container.env_files", reason));
        }
        let volume = self.volumes.iter().find(|volume| !is_volume(volume));
        if let Some(volume) = volume {
            let reason = format!("has {volume:?}, which is not source:/target or source:/target:options");
            return Some(("engines[].container.volumes", reason));
        }
        self.published().err()
    }

    /// A field that is set though it only counts when the container is created.
    fn creation_field(&self) -> Option<&'static str> {
        [
            ("engines[].container.command", !self.command.is_empty()),
            ("engines[].container.env", !self.env.is_empty()),
            ("engines[].container.env_files", !self.env_files.is_empty()),
            ("engines[].container.ports", !self.ports.is_empty()),
            ("engines[].container.network", self.network.is_some()),
            ("engines[].container.gpus", !self.gpus.is_empty()),
            ("engines[].container.volumes", !self.volumes.is_empty()),
            ("engines[].container.shm_size", self.shm_size.is_some()),
            ("engines[].container.user", self.user.is_some()),
            ("engines[].container.ulimits", !self.ulimits.is_empty()),
        ]
        .into_iter()
        .find_map(|(field, set)| set.then_some(field))
    }
}

/// The systemd unit of one engine: `unit: NAME`, or a map when more than the name is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its full name; `.service` is added to a bare one.
    pub name: String,
    /// Whether it belongs to the user's own systemd instead of the machine's.
    pub user: bool,
    /// D-Bus address in place of the system's or the session's.
    pub bus: Option<String>,
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnitVisitor)
    }
}

struct UnitVisitor;

impl<'de> Visitor<'de> for UnitVisitor {
    type Value = Unit;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a systemd unit, or a map of name, user and bus")
    }

    fn visit_str<E>(self, name: &str) -> Result<Unit, E> {
        Ok(UnitFields { name: name.to_owned(), user: false, bus: None }.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Unit, A::Error> {
        UnitFields::deserialize(MapAccessDeserializer::new(map)).map(Unit::from)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitFields {
    name: String,
    #[serde(default)]
    user: bool,
    #[serde(default)]
    bus: Option<String>,
}

impl From<UnitFields> for Unit {
    fn from(fields: UnitFields) -> Self {
        let UnitFields { mut name, user, bus } = fields;
        if !name.is_empty() && !name.contains('.') {
            name.push_str(".service");
        }
        Self { name, user, bus }
    }
}

impl Unit {
    /// Field and reason of what cannot be.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(reason) = bad_name(&self.name) {
            return Some(("engines[].unit", reason));
        }
        let service = self.name.ends_with(".service");
        (!service).then(|| ("engines[].unit", format!("is {:?}, which is not a service", self.name)))
    }
}

/// Why a container or unit cannot have that name; both allow these characters and no others.
fn bad_name(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@:\\".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let fits = first && name.len() <= MAX_NAME && name.bytes().all(allowed);
    (!fits).then(|| format!("is {name:?}, which is no name of letters, digits and _ . - @ :"))
}

fn is_volume(text: &str) -> bool {
    let mut parts = text.split(':');
    let (source, target, _options, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    source.is_some_and(|source| !source.is_empty())
        && target.is_some_and(|target| target.starts_with('/'))
        && more.is_none()
}

fn published(text: &str) -> Option<Published> {
    let (outer, inner) = text.rsplit_once(':')?;
    let (address, port) = match outer.rsplit_once(':') {
        // An IPv6 address stands in brackets.
        Some((address, port)) => (address.trim_matches(['[', ']']).parse().ok()?, port),
        None => (IpAddr::from([127, 0, 0, 1]), outer),
    };
    let port_of = |text: &str| text.parse().ok().filter(|port| *port != 0);
    Some(Published { address, port: port_of(port)?, inner: port_of(inner)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(yaml: &str) -> Container {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_unit_is_a_name_or_a_map_and_nothing_else() {
        let unit = |yaml: &str| serde_saphyr::from_str::<Unit>(yaml);
        let plain = Unit { name: "parakeet.service".into(), user: false, bus: None };
        assert_eq!(unit("parakeet").unwrap(), plain);
        assert_eq!(unit("{name: parakeet.service}").unwrap(), plain);
        let full = unit("{name: a@b.service, user: true, bus: 'unix:path=/run/bus'}").unwrap();
        assert_eq!(
            full,
            Unit { name: "a@b.service".into(), user: true, bus: Some("unix:path=/run/bus".into()) }
        );
        assert!(unit("{name: a, usr: true}").unwrap_err().to_string().contains("usr"));
        assert!(unit("[a]").unwrap_err().to_string().contains("name of a systemd unit"));
        assert_eq!(full.fault(), None);
        assert!(unit("a.socket").unwrap().fault().unwrap().1.contains("not a service"));
        assert!(unit("''").unwrap().fault().is_some());
        assert!(unit("-h").unwrap().fault().is_some());
    }

    #[test]
    fn ports_are_read_with_and_without_an_address() {
        let ports =
            container("{name: a, image: b, ports: ['9000:9000', '0.0.0.0:80:9000', '[::1]:81:9000']}");
        let published = ports.published().unwrap();
        let shown: Vec<_> =
            published.iter().map(|port| (port.address.to_string(), port.port, port.inner)).collect();
        let expected = [("127.0.0.1", 9000, 9000), ("0.0.0.0", 80, 9000), ("::1", 81, 9000)];
        assert_eq!(shown, expected.map(|(address, port, inner)| (address.to_owned(), port, inner)));
        for wrong in ["9000", "a:9000", "1:2:3:9000", "80:0", "80:70000"] {
            let mut bad = ports.clone();
            bad.ports = vec![wrong.to_owned()];
            let (field, reason) = bad.fault().unwrap();
            assert_eq!(field, "engines[].container.ports");
            assert!(reason.contains(wrong), "{reason}");
        }
    }

    #[test]
    fn what_only_a_new_container_takes_needs_an_image() {
        assert_eq!(container("{name: parakeet}").fault(), None);
        assert_eq!(container("{name: parakeet}").engine, ContainerEngine::Auto);
        let (field, reason) = container("{name: a, gpus: [all]}").fault().unwrap();
        assert_eq!(field, "engines[].container.gpus");
        assert!(reason.contains("engines[].container.image"), "{reason}");
        assert_eq!(container("{name: a, image: b, gpus: [all], shm_size: 8GiB}").fault(), None);
        assert_eq!(container("{name: a/b}").fault().unwrap().0, "engines[].container.name");
        let twice = "{name: a, image: b, env: {K: v}, env_files: {K: /run/k}}";
        assert_eq!(container(twice).fault().unwrap().0, "engines[].container.env_files");
        for wrong in ["cache", "cache:opt", ":/opt", "a:/b:ro:z"] {
            let mut bad = container("{name: a, image: b}");
            bad.volumes = vec![wrong.to_owned()];
            assert_eq!(bad.fault().unwrap().0, "engines[].container.volumes", "{wrong}");
        }
    }
}
