//! A real Redis for tests.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(120);
const PASSWORD: &str = "planted-redis-password";

/// A Redis with a password, on a free port of the loopback.
pub struct Server {
    port: u16,
    dir: TempDir,
    child: Child,
}

impl Server {
    pub async fn start() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("url"), format!("redis://:{PASSWORD}@127.0.0.1:{port}/0\n")).unwrap();
        let child = run(port, &dir);
        let server = Self { port, dir, child };
        server.connection().await;
        server
    }

    /// Writes all data to disk, so that they are there after a restart.
    pub async fn save(&self) {
        let () = redis::cmd("SAVE").query_async(&mut self.connection().await).await.unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn restart(&mut self) {
        self.child = run(self.port, &self.dir);
        self.connection().await;
    }

    pub fn url_file(&self) -> PathBuf {
        self.dir.path().join("url")
    }

    pub async fn connection(&self) -> MultiplexedConnection {
        let url = std::fs::read_to_string(self.url_file()).unwrap();
        let client = redis::Client::open(url.trim()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "redis-server does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(port: u16, dir: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--requirepass", PASSWORD])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed by `make packages-test`")
}
