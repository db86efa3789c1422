//! Orders to a guard: what it may do about its engine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use contract::{RepairOrder, port};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::runtime::reflector::ObjectRef;
use serde::Deserialize;
use speechstack_crds::SpeechStack;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Guards, tokens};

/// For the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES: usize = 4096;

/// The guard took the order, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted;

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The guard has another instance or attempt by now.
    #[error("meant for another instance: the guard has {instance:?}, attempt {attempt}")]
    Outdated {
        /// The guard's instance.
        instance: String,
        /// The guard's attempt.
        attempt: u32,
    },
    /// The guard does not take orders from us (401 or 403).
    #[error("not allowed: status {0}")]
    Forbidden(StatusCode),
    /// The guard does not understand the order.
    #[error("not understood: status {0}")]
    Unexpected(StatusCode),
    /// No token to show.
    #[error("no token to show")]
    Token(#[source] tokens::Error),
    /// No connection to the guard.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// The exchange broke.
    #[error("exchange broke")]
    Exchange(#[source] hyper::Error),
    /// The request could not be made.
    #[error("bad request")]
    Request(#[source] http::Error),
    /// The order could not be written.
    #[error("unable to write the order")]
    Body(#[source] serde_json::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Silent(#[source] tokio::time::error::Elapsed),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conflict {
    instance: String,
    attempt: u32,
}

impl Guards {
    /// Gives the guard of that stack at that address an order.
    ///
    /// # Errors
    /// When the guard refuses it or cannot be reached within 5 s.
    pub async fn order(
        &self,
        stack: &ObjectRef<SpeechStack>,
        address: IpAddr,
        order: &RepairOrder,
    ) -> Result<Accepted, Refusal> {
        let token = self.tokens.of(stack).await.map_err(Refusal::Token)?;
        let address = SocketAddr::new(address, port::GUARD_ADMIN);
        timeout(TIMEOUT, exchange(&token, address, order)).await.map_err(Refusal::Silent)?
    }
}

/// One order to one guard.
pub(super) async fn exchange(
    token: &str,
    address: SocketAddr,
    order: &RepairOrder,
) -> Result<Accepted, Refusal> {
    let body = serde_json::to_vec(order).map_err(Refusal::Body)?;
    let request = Request::post("/repair")
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(Refusal::Request)?;
    let stream = TcpStream::connect(address).await.map_err(Refusal::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Refusal::Exchange)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(Refusal::Exchange)?;
        let status = response.status();
        // What cannot be read of a refusal is not needed.
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        judge(status, &body)
    };
    // The connection only drives the exchange; should it end early, the answer says so.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

fn judge(status: StatusCode, body: &[u8]) -> Result<Accepted, Refusal> {
    match status {
        StatusCode::CONFLICT => {
            let Conflict { instance, attempt } = serde_json::from_slice(body).unwrap_or_default();
            Err(Refusal::Outdated { instance, attempt })
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Forbidden(status)),
        status if status.is_success() => Ok(Accepted),
        status => Err(Refusal::Unexpected(status)),
    }
}
