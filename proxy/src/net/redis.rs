//! A connection to a Redis.

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a Redis cannot be reached. None shows the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file with its URL.
    #[error("unable to read its url_file: {0}")]
    Read(std::io::Error),
    /// There is something else than a URL.
    #[error("it has no URL as in rediss://:PASSWORD@host:6379/0")]
    Url,
    /// The server, or the way to it.
    #[error("{0}")]
    Redis(RedisError),
}

/// Where a Redis is, and how long an answer of it may take.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Its URL.
    pub url: Option<&'a str>,
    /// A file with the URL, which comes first.
    pub url_file: Option<&'a Path>,
    pub timeout: Duration,
}

/// Connects, by the URL that is in the file now.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(server: Server<'_>) -> Result<MultiplexedConnection, ConnectError> {
    let url = match (server.url, server.url_file) {
        (_, Some(path)) => {
            tokio::fs::read_to_string(path).await.map_err(ConnectError::Read)?.trim().to_owned()
        }
        (url, None) => url.unwrap_or_default().to_owned(),
    };
    let client = Client::open(url).map_err(|_| ConnectError::Url)?;
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(server.timeout));
    client.get_multiplexed_async_connection_with_config(&limits).await.map_err(ConnectError::Redis)
}
