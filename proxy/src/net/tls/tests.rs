use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::net::drain::Drain;
use crate::net::{Clients, Limits, Tls, serve_within};

/// A generous ceiling for what must happen.
const SOON: Duration = Duration::from_secs(30);

/// Writes a new pair, and gives a client that trusts nothing else.
fn renew(dir: &Path) -> Clients {
    let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    Clients::fresh(Some(&Tls::trusting(roots).unwrap()))
}

struct Server {
    address: SocketAddr,
    registry: Registry,
    drain: Drain,
    dir: TempDir,
    first: Clients,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first = renew(dir.path());
        let registry = Registry::new();
        let tls = ServerTls::open(files(dir.path()), TlsMetrics::register(&registry).unwrap()).unwrap();
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new();
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(format!("{:?}", request.version()))))
        });
        let follow = tokio::spawn(tls.clone().follow());
        let serve = tokio::spawn(serve_within(listener, Some(tls), move |_| service, limits, drain.clone()));
        let _tasks = [follow, serve].map(AbortOnDropHandle::new);
        Self { address, registry, drain, dir, first, _tasks }
    }

    async fn get(&self, client: &crate::net::Client) -> Option<String> {
        let url = format!("https://localhost:{}/", self.address.port());
        let reply = client.request(Request::get(url).body(Body::empty()).unwrap()).await.ok()?;
        Some(String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    fn counted(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let of = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == label;
        family.get_metric().iter().find(of).unwrap().get_counter().get_value()
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

fn files(dir: &Path) -> Files {
    Files { cert: dir.join("tls.crt"), key: dir.join("tls.key") }
}

#[tokio::test]
async fn clients_agree_on_http_1_and_http_2_as_on_the_plain_port() {
    let server = Server::start(Limits::default()).await;
    assert_eq!(server.get(&server.first.http).await.as_deref(), Some("HTTP/1.1"));
    assert_eq!(server.get(&server.first.grpc).await.as_deref(), Some("HTTP/2.0"));
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_an_invalid_one_changes_nothing() {
    let server = Server::start(Limits::default()).await;
    let second = renew(server.dir.path());
    server.until("the new certificate is served", async || server.get(&second.http).await.is_some()).await;
    assert_eq!(server.get(&server.first.http).await, None, "the old one is not served any more");
    assert_eq!(server.counted("speechstack_gateway_tls_reloads_total", "applied"), 1.0);

    // A key that belongs to another certificate.
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(server.dir.path().join("tls.key"), other.signing_key.serialize_pem()).unwrap();
    let invalid = async || server.counted("speechstack_gateway_tls_reloads_total", "invalid") >= 1.0;
    server.until("the pair is looked at", invalid).await;
    assert_eq!(server.get(&second.http).await.as_deref(), Some("HTTP/1.1"));
}

#[tokio::test]
async fn a_client_of_plain_http_is_told_to_use_https() {
    let server = Server::start(Limits::default()).await;
    let url = format!("http://localhost:{}/v1/models", server.address.port());
    let reply =
        Clients::fresh(None).http.request(Request::get(url).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "https_required");
    let counted = async || server.counted("speechstack_gateway_tls_refused_total", "plain_http") == 1.0;
    server.until("it is counted", counted).await;
}

#[tokio::test]
async fn an_unfinished_handshake_holds_no_connection_and_no_stop() {
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&[HANDSHAKE, 3, 1]).await.unwrap();
    let read = timeout(SOON, socket.read(&mut [0; 16])).await.expect("the connection stays open");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let counted = async || server.counted("speechstack_gateway_tls_refused_total", "timeout") == 1.0;
    server.until("it is counted", counted).await;

    let patient = Server::start(Limits::default()).await;
    let mut socket = TcpStream::connect(patient.address).await.unwrap();
    socket.write_all(&[HANDSHAKE]).await.unwrap();
    patient.until("it is accepted", async || patient.drain.in_flight() == 1).await;
    assert_eq!(timeout(SOON, patient.drain.finish(SOON)).await.unwrap(), 0, "the stop waited for it");
}

#[test]
fn what_is_wrong_with_a_pair_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let metrics = TlsMetrics::register(&Registry::new()).unwrap();
        ServerTls::open(files(dir.path()), metrics).map(drop).unwrap_err().to_string()
    };
    assert!(open().starts_with("unable to read"), "{}", open());
    renew(dir.path());
    std::fs::write(dir.path().join("tls.crt"), "no PEM").unwrap();
    assert!(open().ends_with("tls.crt has no certificate in PEM"), "{}", open());
    renew(dir.path());
    std::fs::write(dir.path().join("tls.key"), "").unwrap();
    assert!(open().ends_with("tls.key has no private key in PEM"), "{}", open());
    renew(dir.path());
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("tls.key"), other.signing_key.serialize_pem()).unwrap();
    assert!(open().ends_with("cannot be used together"), "{}", open());
}
