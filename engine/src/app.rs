//! Wires the engine together, and serves until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::backend::Models;
use crate::backend::{hearing, speaking};
use crate::core::Core;
use crate::fault::{Crash, Switchboard};
use crate::form::MAX_BODY_BYTES;
use crate::grpc;
use crate::health;
use crate::kind::Kind;
use crate::lane::{Gate, Lane, Pace};
use crate::protocol::{Protocol, Server};
use crate::serve::{Listener, Wire};
use crate::wire;
use crate::work::{Refusal, Synthesizer, Transcriber, Work, Writer};

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// What for.
    pub kind: Kind,
    /// The protocols, checked by [`crate::protocol::check`].
    pub protocols: Vec<Protocol>,
    /// Where HTTP is served; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where gRPC is served; port 0 picks a free one.
    pub grpc: Option<SocketAddr>,
    /// The API key that protocol `openai` asks for.
    pub api_key: Option<String>,
    /// Whether the fault switchboard is there.
    pub faults: bool,
    /// The shortest service time.
    pub pace: Pace,
    /// Jobs that run at a time, each with models of its own.
    pub jobs: usize,
    /// Which models to use.
    pub models: Models,
    /// Where lasting faults are kept; by default a folder in the temporary directory, named by the port.
    pub state_dir: Option<PathBuf>,
}

/// An engine that listens and loads, and does not serve yet.
pub struct Bound {
    /// Where it serves HTTP.
    pub address: SocketAddr,
    /// Where it serves gRPC.
    pub grpc: Option<SocketAddr>,
    listeners: Vec<Listener>,
    core: Arc<Core>,
}

/// Binds the addresses and starts to load the models.
///
/// # Errors
/// When an address is taken or no thread can be had.
pub async fn build(config: Config) -> io::Result<Bound> {
    let mut http = Listener::bind(config.listen, Wire::Http1).await?;
    let address = http.address;
    let state_dir = config
        .state_dir
        .unwrap_or_else(|| std::env::temp_dir().join(format!("speechstack-engine-{}", address.port())));
    let core = Arc::new(Core {
        kind: config.kind,
        capability: config.models.capability(config.kind),
        protocols: config.protocols.iter().map(|protocol| protocol.name()).collect(),
        api_key: config.api_key,
        gate: Arc::new(Gate::new(config.jobs)),
        faults: config.faults.then(|| Switchboard::open(state_dir, Instant::now())),
        pace: config.pace,
        draining: AtomicBool::new(false),
    });
    let work = match config.kind {
        Kind::Stt => {
            let loader = Arc::new(hearing::Loader::new(config.models));
            let lane = Lane::start(&core.gate, move || loader.load())?;
            Work::Stt(Arc::new(Transcriber::new(core.clone(), lane)))
        }
        Kind::Tts => {
            let loader = Arc::new(speaking::Loader::new(config.models, core.gate.jobs > 1));
            let lane = Lane::start(&core.gate, move || loader.load())?;
            Work::Tts(Arc::new(Synthesizer::new(core.clone(), lane)))
        }
        Kind::Llm => {
            let lane = Lane::start(&core.gate, || Ok::<(), Infallible>(()))?;
            Work::Llm(Arc::new(Writer::new(core.clone(), lane)))
        }
    };
    let (http_routes, grpc_routes) = routes(&core, &config.protocols, &work);
    http.router = interfered(&core, http_routes);
    let mut bound = Bound { address, grpc: None, listeners: vec![http], core };
    if let Some(address) = config.grpc {
        let mut grpc = Listener::bind(address, Wire::Http2).await?;
        grpc.router = interfered(&bound.core, grpc_routes);
        bound.grpc = Some(grpc.address);
        bound.listeners.push(grpc);
    }
    Ok(bound)
}

/// The routes of all protocols, for HTTP and for gRPC.
fn routes(core: &Arc<Core>, protocols: &[Protocol], work: &Work) -> (Router, Router) {
    let fault = post(wire::arm).get(wire::report).delete(wire::disarm);
    let mut http = Router::new().route("/_engine/fault", fault).with_state(core.clone());
    let mut grpc = Routes::builder();
    grpc.add_service(grpc::health(core.clone()));
    let mut has_health = false;
    for protocol in protocols {
        match protocol.server(work) {
            Some(Server::Http(router)) => {
                http = http.merge(router);
                has_health = true;
            }
            Some(Server::WebSocket(router)) => http = http.merge(router),
            Some(Server::Grpc(add)) => add(&mut grpc),
            None => {}
        }
    }
    if !has_health {
        http = http.merge(health::nim(core.clone()));
    }
    let http = http
        .fallback(async || Refusal::Body(StatusCode::NOT_FOUND, "Not Found".into()))
        .method_not_allowed_fallback(async || {
            Refusal::Body(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    (http, grpc.routes().into_axum_router())
}

/// Routes with the faults below them.
fn interfered(core: &Arc<Core>, routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn_with_state(core.clone(), wire::interfere))
}

impl Bound {
    /// Serves until `stop`, then drains: not ready, no new connections, requests in flight finish within ten seconds.
    ///
    /// # Errors
    /// When a listener, closed by F13, cannot be opened again, or when F41 ends the process.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self { listeners, core, .. } = self;
        let stopping = CancellationToken::new();
        let served = listeners.into_iter().map(|listener| listener.serve(core.clone(), stopping.clone()));
        let mut served = std::pin::pin!(futures::future::try_join_all(served));
        tokio::select! {
            // A start that fails serves nothing.
            biased;
            crash = crash(&core) => return Err(io::Error::other(crash)),
            ended = &mut served => ended?,
            () = stop => {
                tracing::info!("draining");
                core.draining.store(true, Ordering::Release);
                stopping.cancel();
                served.await?
            }
        };
        Ok(())
    }
}

/// Returns once F41 ends the process.
async fn crash(core: &Core) -> Crash {
    const PERIOD: Duration = Duration::from_millis(20);
    let Some(faults) = &core.faults else { return std::future::pending().await };
    loop {
        if let Some(crash) = faults.crash(Instant::now()) {
            return crash;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When an address is taken, signals cannot be received, or F41 ends the process.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let bound = build(config).await?;
        let model = bound.core.capability.model;
        tracing::info!(address = %bound.address, model, grpc = ?bound.grpc, "listening");
        if bound.core.kind == Kind::Llm {
            tracing::warn!(
                model,
                "answers are templates: for tests and demos of conversations, never a language model"
            );
        } else if bound.core.capability.is_fallback() {
            tracing::warn!(
                model,
                "no neural models: speech for tests and demos, English alone; `make models` fetches them"
            );
        }
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
