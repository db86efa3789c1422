//! A request body that is read whole.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::Error;
use crate::net::body::late;

/// All of a body of at most `limit` bytes.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::BodyTimeout`]; [`Error::Truncated`].
pub async fn read(body: Body, limit: usize) -> Result<Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge { limit: limit as u64 }),
        Err(error) if late(&*error).is_some() => Err(Error::BodyTimeout),
        Err(_) => Err(Error::Truncated),
    }
}
