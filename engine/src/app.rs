//! Wires the engine together, and serves until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::{Switchboard, wire};
use crate::ffi::{Recognizer, Voices};
use crate::form::MAX_BODY_BYTES;
use crate::health;
use crate::inference::detail;
use crate::lane::{Gate, Lane, Pace};
use crate::magpie::{self, Magpie};
use crate::parakeet::{self, Parakeet};

/// Where Debian's `pocketsphinx-en-us` has its models.
const MODELS: &str = "/usr/share/pocketsphinx/model/en-us";

/// Requests in flight at a stop may take this long.
const DRAIN: Duration = Duration::from_secs(10);

/// The dialect that an engine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Speech to text.
    #[value(name = "stt")]
    Parakeet,
    /// Text to speech.
    #[value(name = "tts")]
    Magpie,
}

impl Kind {
    /// The truthful name of the model behind the dialect.
    #[must_use]
    pub fn model(self) -> &'static str {
        match self {
            Self::Parakeet => "reference-pocketsphinx",
            Self::Magpie => "reference-flite",
        }
    }
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// The dialect.
    pub kind: Kind,
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Whether the fault switchboard is there.
    pub faults: bool,
    /// The shortest service time.
    pub pace: Pace,
    /// Where lasting faults are kept; by default a folder in the temporary directory, named by the port.
    pub state_dir: Option<PathBuf>,
}

/// What every handler needs.
pub struct Core {
    /// The dialect.
    pub kind: Kind,
    /// Admission to the lane.
    pub gate: Arc<Gate>,
    /// The switchboard, when it is on.
    pub faults: Option<Switchboard>,
    /// The shortest service time.
    pub pace: Pace,
    /// Set when the engine is stopping.
    pub draining: AtomicBool,
}

/// An engine that listens and loads, and does not serve yet.
pub struct Bound {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    router: Router,
    core: Arc<Core>,
}

/// Binds the address and starts to load the models.
///
/// # Errors
/// When the address is taken or no thread can be had.
pub async fn build(config: Config) -> io::Result<Bound> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let state_dir = config
        .state_dir
        .unwrap_or_else(|| std::env::temp_dir().join(format!("speechstack-engine-{}", address.port())));
    let core = Arc::new(Core {
        kind: config.kind,
        gate: Arc::new(Gate::default()),
        faults: config.faults.then(|| Switchboard::open(state_dir, Instant::now())),
        pace: config.pace,
        draining: AtomicBool::new(false),
    });
    let gate = core.gate.clone();
    let dialect = match config.kind {
        Kind::Parakeet => {
            let lane = Lane::start(gate, || Recognizer::load(Path::new(MODELS)))?;
            parakeet::router(Parakeet { core: core.clone(), lane })
        }
        Kind::Magpie => {
            let lane = Lane::start(gate, Voices::load)?;
            magpie::router(Magpie { core: core.clone(), lane })
        }
    };
    let fault = post(wire::arm).get(wire::report).delete(wire::disarm);
    let router = Router::new()
        .route("/health", get(health::ready))
        .route("/v1/health/ready", get(health::ready))
        .route("/v1/health/live", get(health::live))
        .route("/v1/models", get(health::models))
        .route("/v1/metadata", get(health::metadata))
        .route("/_engine/fault", fault)
        .with_state(core.clone())
        .merge(dialect)
        .fallback(async || detail(StatusCode::NOT_FOUND, "Not Found"))
        .method_not_allowed_fallback(async || detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(core.clone(), wire::interfere));
    Ok(Bound { address, listener, router, core })
}

impl Bound {
    /// Serves until `stop`, then drains: not ready, no new connections, requests in flight finish within ten seconds.
    ///
    /// # Errors
    /// When the listener, closed by F13, cannot be opened again.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self { address, listener, router, core } = self;
        let connections = TaskTracker::new();
        let mut stop = pin!(stop);
        let mut open = Some((listener, CancellationToken::new()));
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = accept(open.as_ref()) => match (accepted, &open) {
                    (Ok(stream), Some((_, close))) => {
                        connections.spawn(serve_connection(stream, router.clone(), close.clone()));
                    }
                    (Err(error), _) => {
                        tracing::warn!(%error, "unable to accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    (Ok(_), None) => {}
                },
                _ = tick.tick(), if core.faults.is_some() => {
                    let closed = core.faults.as_ref().is_some_and(|faults| faults.listener_closed(Instant::now()));
                    match open.take() {
                        Some((_, close)) if closed => close.cancel(),
                        None if !closed => open = Some((TcpListener::bind(address).await?, CancellationToken::new())),
                        unchanged => open = unchanged,
                    }
                }
            }
        }
        tracing::info!("draining");
        core.draining.store(true, Ordering::Release);
        if let Some((_, close)) = open.take() {
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

/// Serves one connection; `close` ends it after the request at hand.
async fn serve_connection(stream: TcpStream, router: Router, close: CancellationToken) {
    let _best_effort = stream.set_nodelay(true);
    let (connection, switch) = wire::Connection::new(stream);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(switch.clone());
        let answer = TowerToHyperService::new(router.clone()).call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut serving = pin!(http.serve_connection(TokioIo::new(connection), service));
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

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When the address is taken, or signals cannot be received.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let bound = build(config).await?;
        tracing::info!(address = %bound.address, notice = health::NOTICE, "listening");
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        bound.serve(stop).await
    });
    // A job on the lane, or a request that hangs, does not hold up the end of the process.
    runtime.shutdown_background();
    Ok(served?)
}
