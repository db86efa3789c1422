//! Listens on one address and serves its connections, HTTP/1 or HTTP/2, until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::Core;
use crate::wire;

/// Requests in flight at a stop may take this long.
const DRAIN: Duration = Duration::from_secs(10);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.
    Http1,
    /// HTTP/2 without TLS, as gRPC clients begin it.
    Http2,
}

/// A bound address with what is served there.
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub router: Router,
    wire: Wire,
    /// `None` while F13 keeps it closed; the token ends its connections.
    open: Option<(TcpListener, CancellationToken)>,
}

impl Listener {
    /// Binds an address; nothing is served there yet. `[::]` takes IPv4 as well, and IPv4 alone where the kernel has no IPv6.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(address: SocketAddr, wire: Wire) -> io::Result<Self> {
        let listener = match TcpListener::bind(address).await {
            Err(error)
                if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse =>
            {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
            }
            bound => bound?,
        };
        let address = listener.local_addr()?;
        Ok(Self { address, router: Router::new(), wire, open: Some((listener, CancellationToken::new())) })
    }

    /// Serves until `stop`; requests in flight then finish within ten seconds.
    ///
    /// # Errors
    /// When the listener, closed by F13, cannot be opened again.
    pub async fn serve(mut self, core: Arc<Core>, stop: CancellationToken) -> io::Result<()> {
        let connections = TaskTracker::new();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(self.open.as_ref()) => match (accepted, &self.open) {
                    (Ok(stream), Some((_, close))) => {
                        let connection = serve_connection(self.wire, stream, self.router.clone(), close.clone());
                        connections.spawn(connection);
                    }
                    (Err(error), _) => {
                        tracing::warn!(%error, "unable to accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    (Ok(_), None) => {}
                },
                _ = tick.tick(), if core.faults.is_some() => {
                    let closed = core.faults.as_ref().is_some_and(|faults| faults.listener_closed(Instant::now()));
                    match self.open.take() {
                        Some((_, close)) if closed => close.cancel(),
                        None if !closed => {
                            let listener = TcpListener::bind(self.address).await?;
                            self.open = Some((listener, CancellationToken::new()));
                        }
                        unchanged => self.open = unchanged,
                    }
                }
            }
        }
        if let Some((_, close)) = self.open.take() {
            close.cancel();
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "drain deadline passed");
        }
        Ok(())
    }
}

/// The next connection; never returns while the listener is closed.
async fn accept(open: Option<&(TcpListener, CancellationToken)>) -> io::Result<TcpStream> {
    match open {
        Some((listener, _)) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Serves one connection; `close` ends it after the requests at hand.
async fn serve_connection(wire: Wire, stream: TcpStream, router: Router, close: CancellationToken) {
    let _best_effort = stream.set_nodelay(true);
    let (connection, switch) = wire::Connection::new(stream);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(switch.clone());
        let answer = TowerToHyperService::new(router.clone()).call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let server = match wire {
        Wire::Http1 => server.http1_only(),
        Wire::Http2 => server.http2_only(),
    };
    let mut serving = pin!(server.serve_connection_with_upgrades(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = close.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
