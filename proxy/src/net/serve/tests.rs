use bytes::Bytes;
use futures::StreamExt;
use http::Version;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::net::Clients;
use crate::net::serve::*;

/// A generous ceiling for what must happen.
const SOON: Duration = Duration::from_secs(20);
/// Limits that a test need not wait for.
const WIDE: Limits = Limits {
    max_connections: 100,
    head_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(60),
};

struct Server {
    address: SocketAddr,
    drain: Drain,
    _task: AbortOnDropHandle<()>,
}

/// Answers with the request's version; `/slow` in ten parts over a second.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let version = format!("{:?}", request.version());
    if request.uri().path() != "/slow" {
        return Ok(Response::new(Body::from(version)));
    }
    let parts = futures::stream::iter(0..10).then(|_| async {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(Bytes::from_static(b"x"))
    });
    Ok(Response::new(Body::from_stream(parts)))
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new();
        let task =
            tokio::spawn(serve_within(listener, None, move |_| service_fn(answer), limits, drain.clone()));
        Self { address, drain, _task: AbortOnDropHandle::new(task) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(&self, path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://{}{path}", self.address)).body(Empty::new()).unwrap()
    }
}

/// Sends a request and reads until the reply holds `end`.
async fn ask(socket: &mut TcpStream, request: &str, end: &str) -> String {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    while !String::from_utf8_lossy(&reply).contains(end) {
        let read = timeout(SOON, socket.read_buf(&mut reply)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&reply));
    }
    String::from_utf8(reply).unwrap()
}

/// Waits until the server has closed the connection.
async fn closed(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(SOON, socket.read_to_end(&mut rest)).await.expect("the connection stays open");
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn one_port_serves_http_1_0_and_1_1_and_2() {
    let server = Server::start(WIDE).await;
    let mut socket = server.connect().await;
    ask(&mut socket, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0").await;
    closed(&mut socket).await;
    let mut socket = server.connect().await;
    ask(&mut socket, GET, "\r\n\r\nHTTP/1.1").await;
    let response = server.http2().await.send_request(server.request("/")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0");
}

#[tokio::test]
async fn the_clients_of_this_room_speak_http_1_and_http_2() {
    let server = Server::start(WIDE).await;
    let uri = format!("http://{}/", server.address);
    let (kept, fresh) = (Clients::new(), Clients::fresh(None));
    for (client, expected) in
        [(kept.http, "HTTP/1.1"), (fresh.http, "HTTP/1.1"), (kept.grpc, "HTTP/2.0"), (fresh.grpc, "HTTP/2.0")]
    {
        for _ in 0..2 {
            let response = client.get(uri.parse().unwrap()).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
        }
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_timeout_for_heads() {
    let server = Server::start(Limits { head_timeout: Duration::from_millis(100), ..WIDE }).await;
    let mut socket = server.connect().await;
    let mut http2 = server.http2().await;
    for _ in 0..2 {
        ask(&mut socket, GET, "\r\n\r\nHTTP/1.1").await;
        assert_eq!(http2.send_request(server.request("/")).await.unwrap().status(), 200);
        sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = Server::start(Limits { head_timeout: Duration::from_millis(100), ..WIDE }).await;
    let mut silent = server.connect().await;
    let mut partial = server.connect().await;
    partial.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
    let mut later = server.connect().await;
    ask(&mut later, GET, "\r\n\r\nHTTP/1.1").await;
    later.write_all(b"GET /").await.unwrap();
    let mut preface = server.connect().await;
    preface.write_all(b"PR").await.unwrap();
    for socket in [&mut silent, &mut partial, &mut later, &mut preface] {
        closed(socket).await;
    }
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_in_the_end() {
    let server = Server::start(Limits { idle_timeout: Duration::from_millis(200), ..WIDE }).await;
    let mut socket = server.connect().await;
    ask(&mut socket, GET, "\r\n\r\nHTTP/1.1").await;
    closed(&mut socket).await;
    let mut http2 = server.http2().await;
    assert_eq!(http2.send_request(server.request("/")).await.unwrap().status(), 200);
    timeout(SOON, async {
        while http2.ready().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_response_that_takes_longer_than_all_timeouts_is_not_hurt() {
    let short = Duration::from_millis(150);
    let server = Server::start(Limits { head_timeout: short, idle_timeout: short, ..WIDE }).await;
    let mut socket = server.connect().await;
    ask(&mut socket, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", "0\r\n\r\n").await;
    let response = server.http2().await.send_request(server.request("/slow")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "xxxxxxxxxx");
}

#[tokio::test]
async fn beyond_the_cap_a_connection_waits_until_another_ends() {
    let server = Server::start(Limits { max_connections: 1, ..WIDE }).await;
    let mut first = server.connect().await;
    ask(&mut first, GET, "\r\n\r\nHTTP/1.1").await;
    let mut second = server.connect().await;
    second.write_all(GET.as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(200), second.read(&mut byte)).await.is_err());
    drop(first);
    assert_eq!(timeout(SOON, second.read(&mut byte)).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_drain_lets_responses_end_and_then_closes_both_kinds_of_connections() {
    let server = Server::start(WIDE).await;
    let mut idle = server.connect().await;
    ask(&mut idle, GET, "\r\n\r\nHTTP/1.1").await;
    let mut busy = server.connect().await;
    ask(&mut busy, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n1\r\nx").await;
    let mut http2 = server.http2().await;
    let response = http2.send_request(server.request("/slow")).await.unwrap();
    let drain = server.drain.clone();
    let drained = tokio::spawn(async move { drain.finish(SOON).await });
    closed(&mut idle).await;
    let mut rest = Vec::new();
    timeout(SOON, busy.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "xxxxxxxxxx");
    assert_eq!(drained.await.unwrap(), 0, "no connection was cut");
}
