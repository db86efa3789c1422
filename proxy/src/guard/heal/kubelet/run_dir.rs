//! The folder that guard and engine container share. It is in memory, so reading it never waits.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, process};

use contract::Vitals;
use contract::restart_request::{self, DRAIN, DRAINED, HELPER, INSTANCE, PROVEN, RESTART};
use contract::vitals::VITALS;

use crate::config;
use crate::guard::heal::actuator::Proven;
use crate::guard::heal::vitals::source;

/// What is read of the instance file, which the engine's container could write anything into.
const MOST_BYTES: u64 = 256;

/// The container as its liveness helper last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its key.
    pub key: String,
    /// When the helper last ran.
    pub refreshed: SystemTime,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Puts the helper into the folder and removes what an earlier guard left.
    pub fn open(config: &config::Kubelet) -> io::Result<Self> {
        let dir = Self { path: config.dir.clone() };
        let helper = fs::read(&config.helper).map_err(|error| named(&config.helper, &error))?;
        dir.write(HELPER, &helper, 0o755)?;
        dir.clean();
        Ok(dir)
    }

    /// Removes restart request and drain, which name a container that is gone.
    pub fn clean(&self) {
        for name in [RESTART, DRAIN, DRAINED] {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(name, %error, "unable to clean the run folder");
                }
                _ => {}
            }
        }
    }

    /// The container that the helper described last; `None` before the first one.
    pub fn seen(&self) -> Option<Seen> {
        let file = fs::File::open(self.path.join(INSTANCE)).ok()?;
        let refreshed = file.metadata().ok()?.modified().ok()?;
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        let key = text.lines().next()?.trim();
        (!key.is_empty()).then(|| Seen { key: key.to_owned(), refreshed })
    }

    /// What an earlier guard kept; `None` as well when that cannot be read.
    pub fn proven(&self) -> Option<Proven> {
        let file = fs::File::open(self.path.join(PROVEN)).ok()?;
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let key = Some(lines.next()?).filter(|key| !key.is_empty()).map(str::to_owned);
        let start = Duration::try_from_secs_f64(lines.next()?.parse().ok()?).ok()?;
        Some(Proven { key, start })
    }

    /// Keeps what is proven.
    pub fn keep(&self, proven: &Proven) -> io::Result<()> {
        let key = proven.key.as_deref().unwrap_or_default();
        let text = format!("{key}\n{:.3}\n", proven.start.as_secs_f64());
        self.write(PROVEN, text.as_bytes(), 0o644)
    }

    /// How busy the container was when the helper last ran.
    pub fn vitals(&self) -> Option<Vitals> {
        source::read(&self.path.join(VITALS))
    }

    /// Names the container that must go.
    pub fn request_restart(&self, key: &str, why: &str) -> io::Result<()> {
        self.write(RESTART, restart_request::text(key, why).as_bytes(), 0o644)
    }

    /// Whether the container is about to be stopped.
    pub fn drain_is_asked(&self) -> bool {
        self.path.join(DRAIN).exists()
    }

    /// Tells the helper that the engine is drained.
    pub fn drained(&self) -> io::Result<()> {
        if self.path.join(DRAINED).exists() { Ok(()) } else { self.write(DRAINED, b"", 0o644) }
    }

    /// Replaces the file whole: a reader sees the old one or the new one.
    fn write(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.guard.{}", process::id()));
        let written = fs::write(&temporary, content)
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            named(&path, &error)
        })
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
