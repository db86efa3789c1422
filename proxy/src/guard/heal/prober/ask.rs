//! One request of a probe and its whole reply, over HTTP or gRPC.

use std::fmt;

use axum::body::Body;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;

use crate::grpc::{Code, Status};
use crate::guard::heal::prober::Failure;
use crate::net::{self, Client, Clients, websocket};
use crate::protocol::Transport;

/// What probes are sent with.
pub trait Exchange: fmt::Debug + Send + Sync {
    /// Sends a request and reads the reply up to `limit` bytes: its head, its body and its trailers.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    fn exchange(
        &self,
        transport: Transport,
        request: Request<Body>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Exchanged, Failure>>;
}

/// A head, a body and trailers.
pub type Exchanged = (http::response::Parts, Vec<u8>, HeaderMap);

impl Exchange for Clients {
    fn exchange(
        &self,
        transport: Transport,
        request: Request<Body>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Exchanged, Failure>> {
        let client = match transport {
            Transport::Http | Transport::WebSocket => &self.http,
            Transport::Grpc => &self.grpc,
        };
        exchange(client, transport, request, limit).boxed()
    }
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    /// The status of HTTP.
    pub status: StatusCode,
    /// The body as far as it was read; for a gRPC call that failed, the text of its status.
    pub body: Vec<u8>,
}

/// Sends a request and reads the reply up to `limit` bytes.
///
/// # Errors
/// [`Failure::Unreachable`].
pub async fn send(with: &dyn Exchange, request: Request<Body>, limit: usize) -> Result<Reply, Failure> {
    let (head, body, _) = with.exchange(Transport::Http, request, limit).await?;
    Ok(Reply { status: head.status, body })
}

/// As [`send`] for a call over a framed transport, whose status becomes one of HTTP.
///
/// # Errors
/// [`Failure::Unreachable`], also when the reply has no status.
pub async fn call(
    with: &dyn Exchange,
    transport: Transport,
    request: Request<Body>,
    limit: usize,
) -> Result<Reply, Failure> {
    let (head, body, trailers) = with.exchange(transport, request, limit).await?;
    if head.status != StatusCode::OK {
        return Ok(Reply { status: head.status, body });
    }
    let status = Status::read(&head.headers).or_else(|| Status::read(&trailers));
    let status = status.ok_or(Failure::Unreachable)?;
    let http = status.http();
    let body = if status.code == Code::Ok { body } else { status.message.into_bytes() };
    Ok(Reply { status: http, body })
}

async fn exchange(
    client: &Client,
    transport: Transport,
    request: Request<Body>,
    limit: usize,
) -> Result<Exchanged, Failure> {
    let response = match transport {
        Transport::Http | Transport::Grpc => {
            let response = client.request(request).await.map_err(|error| unreachable(&error))?;
            response.map(net::Reply::Shared)
        }
        Transport::WebSocket => {
            websocket::call(client, request).await.map_err(|error| unreachable(&error))?
        }
    };
    let (head, body) = response.into_parts();
    let (body, trailers) = read(body, limit).await.map_err(|error| unreachable(&error))?;
    Ok((head, body, trailers))
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::debug!(error, "probe got no answer");
    Failure::Unreachable
}

/// The body up to `limit` bytes, after which the rest is not read, and the trailers.
async fn read(mut body: net::Reply, limit: usize) -> Result<(Vec<u8>, HeaderMap), net::ReplyError> {
    let (mut read, mut trailers) = (Vec::new(), HeaderMap::new());
    while read.len() < limit
        && let Some(frame) = body.frame().await
    {
        match frame?.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((read, trailers))
}
