//! The least that a proxy on hyper can do: passes every request on to an engine and every reply back, and nothing else.

use std::net::SocketAddr;

use anyhow::Result;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::subject::Pair;

const BUFFER_BYTES: usize = 64 * 1024;

/// Serves until SIGTERM.
pub fn serve(listen: SocketAddr, engines: Pair) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = accept(listen, engines) => ended,
            _ = terminate.recv() => Ok(()),
        }
    })
}

/// Relays the bytes of every connection until SIGTERM: the least that anything between two ends can do.
pub fn raw(listen: SocketAddr, target: SocketAddr) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let (mut client, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = terminate.recv() => return Ok(()),
            };
            tokio::spawn(async move {
                let Ok(mut engine) = tokio::net::TcpStream::connect(target).await else { return };
                let _ = (client.set_nodelay(true), engine.set_nodelay(true));
                // The bench closes its connections as it pleases.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    })
}

async fn accept(listen: SocketAddr, engines: Pair) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(BUFFER_BYTES)
        .build(connector);
    let engines = Engines { stt: engine(engines.stt)?, tts: engine(engines.tts)? };
    let mut protocol = hyper::server::conn::http1::Builder::new();
    protocol.max_buf_size(BUFFER_BYTES);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, engines) = (client.clone(), engines.clone());
        let service = service_fn(move |request| pass(client.clone(), engines.clone(), request));
        let connection = protocol.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // The bench closes its connections as it pleases.
            let _ = connection.await;
        });
    }
}

#[derive(Clone)]
struct Engines {
    stt: (Authority, HeaderValue),
    tts: (Authority, HeaderValue),
}

fn engine(address: SocketAddr) -> Result<(Authority, HeaderValue)> {
    let authority = Authority::try_from(address.to_string())?;
    let host = HeaderValue::try_from(authority.as_str())?;
    Ok((authority, host))
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    engines: Engines,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>> {
    let speaks = request.uri().path().starts_with("/v1/audio/synthesize");
    let (authority, host) = if speaks { engines.tts } else { engines.stt };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(authority));
    *request.uri_mut() = Uri::from_parts(parts)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(client.request(request).await?)
}
