//! Reads a container's state, by a request of our own: Podman has states that the client library's types refuse, such as
//! `stopped` from the end of a process until its cleanup.

use std::path::Path;

use bollard::errors::Error as ApiError;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::guard::heal::actuator::Instance;
use crate::guard::heal::container::{Error, state};

/// Largest answer, bytes; real ones have some ten thousand.
const MAX_ANSWER: usize = 1024 * 1024;

/// The engine in that container; `None` when there is none of that name.
pub(super) async fn inspect(socket: &Path, name: &str) -> Result<Option<Instance>, Error> {
    let of = |source: ApiError| Error::of("inspect", socket, source);
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| Error::Connect { path: socket.into(), source })?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| of(error.into()))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(format!("/containers/{name}/json")).header(header::HOST, "localhost");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| of(error.into()))?;
    let answer = sender.send_request(request).await.map_err(|error| of(error.into()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| of(std::io::Error::other(error).into()))?.to_bytes();
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::OK => state::instance(&body).map(Some).map_err(|error| of(error.into())),
        status => {
            let message = String::from_utf8_lossy(&body).chars().take(200).collect();
            Err(Error::Refused { what: "inspect", status: status.as_u16(), message })
        }
    }
}
