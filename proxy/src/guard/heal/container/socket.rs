//! Finds the container engine's API socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;

use crate::config::{self, ContainerEngine};
use crate::guard::heal::container::{Error, START_TIMEOUT};

/// Connects to the configured socket, or to the first that works.
pub(super) async fn connect(settings: &config::Container) -> Result<(Docker, PathBuf), Error> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let candidates = match &settings.socket {
        Some(socket) => vec![socket.clone()],
        None => candidates(settings.engine, runtime_dir.as_deref(), own_uid()),
    };
    let path = usable(&candidates).await?;
    let what = "find";
    let of = |source| Error::of(what, &path, source);
    let docker =
        Docker::connect_with_unix(&path.to_string_lossy(), START_TIMEOUT.as_secs(), API_DEFAULT_VERSION);
    let docker = docker.map_err(of)?.negotiate_version().await.map_err(of)?;
    Ok((docker, path))
}

/// The user that runs this process; root where that cannot be seen, whose sockets are looked for anyway.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |own| own.uid())
}

/// Where sockets are by default, best first.
fn candidates(engine: ContainerEngine, runtime_dir: Option<&Path>, uid: u32) -> Vec<PathBuf> {
    let own = runtime_dir.map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), Path::to_owned);
    let docker = [PathBuf::from("/var/run/docker.sock"), own.join("docker.sock")];
    let podman = [PathBuf::from("/run/podman/podman.sock"), own.join("podman/podman.sock")];
    match engine {
        ContainerEngine::Docker => docker.to_vec(),
        ContainerEngine::Podman => podman.to_vec(),
        ContainerEngine::Auto => [docker, podman].concat(),
    }
}

/// The first that takes a connection; otherwise why the first that is there does not.
async fn usable(candidates: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut failure = None;
    for path in candidates {
        match UnixStream::connect(path).await {
            Ok(_) => return Ok(path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failure = failure.or_else(|| Some((path.clone(), error))),
        }
    }
    let tried = || candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ");
    Err(match failure {
        None => Error::NoSocket { tried: tried() },
        Some((path, error)) if error.kind() == io::ErrorKind::PermissionDenied => Error::Permission { path },
        Some((path, source)) => Error::Connect { path, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_comes_first_then_podman_with_root_then_without() {
        let own = Path::new("/run/user/7");
        let all = candidates(ContainerEngine::Auto, Some(own), 1);
        let expected = [
            "/var/run/docker.sock",
            "/run/user/7/docker.sock",
            "/run/podman/podman.sock",
            "/run/user/7/podman/podman.sock",
        ];
        assert_eq!(all, expected.map(PathBuf::from));
        assert_eq!(
            candidates(ContainerEngine::Podman, None, 1000)[1],
            Path::new("/run/user/1000/podman/podman.sock")
        );
        assert!(
            candidates(ContainerEngine::Docker, None, 0).iter().all(|path| path.ends_with("docker.sock"))
        );
    }

    #[tokio::test]
    async fn the_first_socket_that_takes_a_connection_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let (absent, dead, live) =
            (folder.path().join("absent"), folder.path().join("dead"), folder.path().join("live"));
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let error = usable(&[absent.clone(), dead.clone()]).await.unwrap_err();
        assert!(matches!(&error, Error::Connect { path, .. } if *path == dead), "{error}");
        let error = usable(std::slice::from_ref(&absent)).await.unwrap_err().to_string();
        assert!(error.contains("engines[].container.socket") && error.contains("absent"), "{error}");
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        assert_eq!(usable(&[absent, dead, live.clone()]).await.unwrap(), live);
    }
}
