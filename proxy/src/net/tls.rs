//! TLS of listeners: HTTPS with a certificate that is read anew when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{IntCounterVec, Opts, Registry};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use twox_hash::XxHash3_64;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);
/// What a connection of TLS begins with: a record of the handshake.
const HANDSHAKE: u8 = 0x16;
/// Most bytes of a plain request that are read before its connection is closed, and the longest time for it.
const REFUSED_BYTES: u64 = 64 * 1024;
const REFUSED_TIME: Duration = Duration::from_secs(2);
/// Said to a client that speaks plain HTTP.
const PLAIN: &str = r#"{"error":{"message":"this port serves HTTPS: use a URL that begins with https://","type":"invalid_request_error","param":null,"code":"https_required"}}"#;

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of it.
    #[error("unable to read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is no PEM, or has no certificate or key in it.
    #[error("{path} has no {what} in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The two do not belong together, or are of a kind that is not served.
    #[error("the certificate {cert} and the key {key} cannot be used together")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The cryptography does not serve TLS.
    #[error("unable to set up TLS")]
    Setup(#[source] rustls::Error),
}

/// What is counted.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    reloads: IntCounterVec,
    refused: IntCounterVec,
}

impl TlsMetrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Certificates that changed, by whether they were applied";
        let reloads =
            IntCounterVec::new(Opts::new("speechstack_gateway_tls_reloads_total", help), &["result"])?;
        let help = "Connections that ended before TLS was agreed on, by reason";
        let refused =
            IntCounterVec::new(Opts::new("speechstack_gateway_tls_refused_total", help), &["reason"])?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        for result in ["applied", "invalid"] {
            reloads.with_label_values(&[result]);
        }
        for refusal in [Refusal::PlainHttp, Refusal::Handshake, Refusal::TimedOut] {
            refused.with_label_values(&[refusal.as_str()]);
        }
        Ok(Self { reloads, refused })
    }
}

/// Why a connection has no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    PlainHttp,
    Handshake,
    TimedOut,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::Handshake => "handshake",
            Self::TimedOut => "timeout",
        }
    }
}

/// The certificate in force.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// TLS of listeners. Cloning shares it.
#[derive(Clone)]
pub struct ServerTls {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    metrics: TlsMetrics,
}

impl ServerTls {
    /// TLS with the certificate of these files, over HTTP/2 and HTTP/1.1 as the client prefers.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn open(files: Files, metrics: TlsMetrics) -> Result<Self, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (cert, key) = (read(&files.cert)?, read(&files.key)?);
        let certified = parse(&files, &cert, &key, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Setup)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, provider, current, acceptor: TlsAcceptor::from(Arc::new(config)), metrics })
    }

    /// Follows the files, for ever. What is invalid changes nothing.
    pub async fn follow(self) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            tick.tick().await;
            // Absent for a moment is how some mounts change a file.
            let Ok(cert) = tokio::fs::read(&self.files.cert).await else { continue };
            let Ok(key) = tokio::fs::read(&self.files.key).await else { continue };
            self.look(&mut seen, &cert, &key);
        }
    }

    /// Takes over what is new.
    fn look(&self, seen: &mut Option<[u64; 2]>, cert: &[u8], key: &[u8]) {
        let hashes = [XxHash3_64::oneshot(cert), XxHash3_64::oneshot(key)];
        let first = seen.is_none();
        if seen.replace(hashes) == Some(hashes) {
            return;
        }
        let result = match parse(&self.files, cert, key, &self.provider) {
            Ok(certified) => {
                let same = self.current.0.read().cert == certified.cert;
                *self.current.0.write() = Arc::new(certified);
                if first && same {
                    return; // what was read at the start
                }
                tracing::info!(file = %self.files.cert.display(), "certificate reloaded");
                "applied"
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                let cause = error.source().map(ToString::to_string);
                tracing::error!(%error, cause, "unable to take over the certificate; the old one stays in force");
                "invalid"
            }
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
    }

    /// Agrees on TLS within `limit`. `None` when that fails; a client that speaks plain HTTP/1 gets an error that says what to do.
    pub(super) async fn accept(
        &self,
        mut stream: TcpStream,
        limit: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let agreed = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) => return Err(None), // a look whether the port is open
                Ok(_) if first != [HANDSHAKE] => {
                    refuse(&mut stream).await;
                    return Err(Some(Refusal::PlainHttp));
                }
                Ok(_) => {}
                Err(_) => return Err(None),
            }
            self.acceptor.accept(stream).await.map_err(|error| {
                tracing::debug!(%error, "no agreement on TLS");
                Some(Refusal::Handshake)
            })
        };
        let refusal = match timeout(limit, agreed).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(refusal)) => refusal,
            Err(_) => Some(Refusal::TimedOut),
        };
        if let Some(refusal) = refusal {
            self.metrics.refused.with_label_values(&[refusal.as_str()]).inc();
        }
        None
    }
}

/// Answers a client that does not speak TLS, and closes. What it still sends is read for a while: a reset would cost it the
/// answer.
async fn refuse(stream: &mut TcpStream) {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{PLAIN}",
        PLAIN.len()
    );
    let closing = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(REFUSED_BYTES), &mut tokio::io::sink()).await
    };
    // The client may be gone.
    let _ = timeout(REFUSED_TIME, closing).await;
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { path: path.into(), source })
}

fn parse(
    files: &Files,
    cert: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let missing = |path: &Path, what| CertificateError::Pem { path: path.into(), what };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| missing(&files.cert, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| missing(&files.key, "private key"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| CertificateError::Pair {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
