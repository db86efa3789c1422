//! A connection to a Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};

use crate::config::Redis;

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

/// Connects, by the URL that is in the file now.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(config: &Redis) -> Result<MultiplexedConnection, ConnectError> {
    let url = match (&config.url, &config.url_file) {
        (_, Some(path)) => {
            tokio::fs::read_to_string(path).await.map_err(ConnectError::Read)?.trim().to_owned()
        }
        (url, None) => url.clone().unwrap_or_default(),
    };
    let client = Client::open(url).map_err(|_| ConnectError::Url)?;
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(config.timeout));
    client.get_multiplexed_async_connection_with_config(&limits).await.map_err(ConnectError::Redis)
}
