//! A Podman of the test's own: storage, state and socket in one temporary folder, gone with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use speechstack_e2e::processes;
use tempfile::TempDir;

/// The image of all containers: nothing but mount points, programs come from the host.
pub const IMAGE: &str = "localhost/speechstack/host:dev";
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Podman and its API socket.
pub struct Podman {
    folder: TempDir,
    service: Child,
}

impl Podman {
    /// Starts the API and makes the image.
    pub fn start() -> Result<Self> {
        // A short path: sockets below it have at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("ss-podman-").tempdir_in("/tmp")?;
        let socket = folder.path().join("api.sock");
        let mut command = processes::tied_command(Path::new("/usr/bin/podman"));
        command.args(globals(folder.path())).args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let service = command.spawn().context("unable to start podman; is it installed?")?;
        let podman = Self { folder, service };
        podman.make_image()?;
        let deadline = Instant::now() + TEST_TIMEOUT;
        while std::os::unix::net::UnixStream::connect(podman.socket()).is_err() {
            ensure!(Instant::now() < deadline, "podman has no socket after {TEST_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(podman)
    }

    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Runs a command of podman's, past the API, and returns what it prints.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command.args(globals(self.folder.path())).args(words).stdin(Stdio::null());
        let output = command.output().context("unable to run podman")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podman {words:?}: {} {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What `podman inspect` says of a container.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let told: Value = serde_json::from_str(&self.run(&["container", "inspect", name])?)?;
        told.get(0).cloned().context("podman inspects nothing")
    }

    /// When the container was started last.
    pub fn started(&self, name: &str) -> Result<String> {
        Ok(self.inspect(name)?["State"]["StartedAt"].as_str().context("no start")?.to_owned())
    }

    /// With what statuses the container has ended so far.
    pub fn exits(&self, name: &str) -> Result<Vec<i64>> {
        let words = ["events", "--stream=false", "--since=1h", "--filter=event=died", "--format={{json .}}"];
        let container = format!("--filter=container={name}");
        let told = self.run(&[&words[..], &[&container]].concat())?;
        let exits = told.lines().map(|line| {
            let event: Value = serde_json::from_str(line)?;
            // Podman leaves a 0 out.
            Ok(event["ContainerExitCode"].as_i64().unwrap_or_default())
        });
        exits.collect()
    }

    fn make_image(&self) -> Result<()> {
        let root = self.folder.path().join("image");
        for folder in ["usr", "proc", "sys", "dev", "tmp", "run", "etc/alternatives", "engine"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        for link in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
        }
        let archive = self.folder.path().join("image.tar");
        let tar = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status()?;
        ensure!(tar.success(), "tar ended with {tar}");
        self.run(&["import", &archive.display().to_string(), IMAGE])?;
        Ok(())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["rm", "--all", "--force", "--time=0"]) {
            eprintln!("unable to remove the test's containers: {error}");
        }
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

fn globals(folder: &Path) -> Vec<String> {
    let of = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--root={}", of("root")),
        format!("--runroot={}", of("run")),
        format!("--tmpdir={}", of("tmp")),
        "--storage-driver=vfs".to_owned(),
        "--cgroup-manager=cgroupfs".to_owned(),
        "--events-backend=file".to_owned(),
        // One runtime, whatever else is installed.
        "--runtime=runc".to_owned(),
    ]
}
