//! How connections to engines are opened: TCP, and TLS on top of it where the URL says https.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use crate::net::socket::{KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, KEEPALIVE_TIME};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The certificate authorities that servers of https URLs are checked against.
#[derive(Clone)]
pub struct Tls(ClientConfig);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate authority is found on this system.
    #[error("no certificate authority is found on this system: install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// The cryptography does not serve TLS.
    #[error("unable to set up TLS")]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// The system's authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn system() -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "unable to read a certificate");
        }
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() { Err(TlsError::NoRoots) } else { Self::trusting(roots) }
    }

    /// These authorities.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn trusting(roots: RootCertStore) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Self(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls")
    }
}

/// Opens connections. Without TLS an https URL is an error.
#[derive(Clone, Debug)]
pub enum Connector {
    /// TCP alone.
    Plain(HttpConnector),
    /// TCP, and TLS on top of it for https.
    Tls(HttpsConnector<HttpConnector>),
}

/// Opens TCP connections as engines need them: no delay, a short time limit, keepalive.
pub(super) fn plain() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_keepalive(Some(KEEPALIVE_TIME));
    http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    http
}

impl Connector {
    /// A connector that agrees on `protocol` (ALPN) where there is TLS.
    pub(super) fn new(tls: Option<&Tls>, protocol: &[u8]) -> Self {
        let mut http = plain();
        let Some(Tls(config)) = tls else { return Self::Plain(http) };
        http.enforce_http(false);
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self::Tls(HttpsConnector::from((http, config)))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Plain(http) => http.poll_ready(context).map_err(Into::into),
            Self::Tls(https) => https.poll_ready(context),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Self::Plain(http) => http.call(uri).map_ok(MaybeHttpsStream::Http).err_into().boxed(),
            Self::Tls(https) => https.call(uri).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use hyper_util::server::conn::auto;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::net::Clients;

    /// Serves over TLS and answers with the protocol that was agreed on: its port, its certificate, its task.
    async fn serve() -> (u16, CertificateDer<'static>, AbortOnDropHandle<()>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config =
            config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        Ok::<_, std::convert::Infallible>(format!("{:?}", request.version()).into_response())
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (port, cert.der().clone(), AbortOnDropHandle::new(server))
    }

    async fn get(
        client: &crate::net::Client,
        url: &str,
    ) -> Result<String, hyper_util::client::legacy::Error> {
        let request = http::Request::get(url).body(Body::empty()).unwrap();
        let reply = client.request(request).await?;
        Ok(String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn https_works_with_a_certificate_of_a_trusted_authority_only() {
        let (port, certificate, _server) = serve().await;
        let url = format!("https://localhost:{port}/");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = Tls::trusting(roots).unwrap();
        for clients in [Clients::kept(Some(&trusting)), Clients::fresh(Some(&trusting))] {
            for _ in 0..2 {
                assert_eq!(get(&clients.http, &url).await.unwrap(), "HTTP/1.1");
                assert_eq!(get(&clients.grpc, &url).await.unwrap(), "HTTP/2.0");
            }
        }
        let (_, other, _server) = serve().await;
        let mut roots = RootCertStore::empty();
        roots.add(other).unwrap();
        let strict = Tls::trusting(roots).unwrap();
        for clients in [Clients::new(), Clients::kept(Some(&strict))] {
            assert!(get(&clients.http, &url).await.unwrap_err().is_connect());
            assert!(get(&clients.grpc, &url).await.unwrap_err().is_connect());
        }
    }
}
