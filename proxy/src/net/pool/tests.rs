use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::Method;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::net::connect::plain;

const KEEP: Duration = Duration::from_secs(60);

/// What a server does with each connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Answers every request.
    Keeps,
    /// Answers one request and closes the connection, which the reply does not announce.
    Closes,
    /// Answers the beginning of a body and waits.
    Stalls,
}

/// A server that reads no more than heads.
struct Server {
    pool: Pool,
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(manner: Manner, reply: &'static str, keep: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (accepted, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (taken, gone) = (Arc::clone(&accepted), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                taken.fetch_add(1, SeqCst);
                let gone = Arc::clone(&gone);
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    let mut buffer = [0; 4096];
                    loop {
                        match stream.read(&mut buffer).await {
                            Ok(0) | Err(_) => break,
                            Ok(read) => seen.extend_from_slice(&buffer[..read]),
                        }
                        if seen.ends_with(b"\r\n\r\n") {
                            let head = String::from_utf8(std::mem::take(&mut seen)).unwrap();
                            assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
                            assert!(head.to_lowercase().contains("\r\nhost: 127.0.0.1:"), "{head}");
                            stream.write_all(reply.as_bytes()).await.unwrap();
                            if manner == Manner::Closes {
                                break;
                            }
                        }
                    }
                    gone.fetch_add(1, SeqCst);
                });
            }
        });
        let pool = Pool::new(address.parse().unwrap(), plain(), keep).unwrap();
        Self { pool, accepted, ended, _task: AbortOnDropHandle::new(task) }
    }

    async fn get(&self) -> Result<Response<Reply>, Error> {
        let request = Request::builder().method(Method::GET).uri("http://elsewhere/a?b");
        self.pool.request(request.body(Body::empty()).unwrap()).await
    }

    async fn whole(&self) -> String {
        let body = self.get().await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never happened that {what}");
}

const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn requests_in_a_row_share_a_connection_however_replies_are_framed() {
    for (reply, body) in [(SIZED, "hello"), (CHUNKED, "hello"), (EMPTY, "")] {
        let server = Server::start(Manner::Keeps, reply, KEEP).await;
        for _ in 0..3 {
            assert_eq!(server.whole().await, body);
        }
        assert_eq!(server.accepted.load(SeqCst), 1, "{reply}");
    }
}

#[tokio::test]
async fn requests_at_a_time_have_connections_of_their_own() {
    let server = Server::start(Manner::Keeps, SIZED, KEEP).await;
    let (one, two) = (server.get().await.unwrap(), server.get().await.unwrap());
    assert_eq!(server.accepted.load(SeqCst), 2);
    drop((one.into_body().collect().await.unwrap(), two.into_body().collect().await.unwrap()));
    assert_eq!(server.whole().await, "hello");
    assert_eq!(server.accepted.load(SeqCst), 2);
}

#[tokio::test]
async fn a_connection_that_the_engine_closed_costs_no_request() {
    let server = Server::start(Manner::Closes, SIZED, KEEP).await;
    for at in 1..20 {
        assert_eq!(server.whole().await, "hello");
        assert_eq!(server.accepted.load(SeqCst), at);
    }
}

#[tokio::test]
async fn a_reply_that_is_dropped_stops_the_engine() {
    let unfinished = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello";
    let server = Server::start(Manner::Stalls, unfinished, KEEP).await;
    let mut reply = server.get().await.unwrap();
    let frame = reply.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.data_ref().unwrap(), "hello");
    drop(reply);
    eventually("the engine sees the end", || server.ended.load(SeqCst) == 1).await;
    let waiting = server.get();
    let silent = tokio::time::timeout(Duration::from_millis(100), async {
        waiting.await.unwrap().into_body().collect().await
    });
    assert!(silent.await.is_err());
    eventually("a request that is dropped ends too", || server.ended.load(SeqCst) == 2).await;
}

#[tokio::test]
async fn connections_that_are_not_used_are_closed() {
    let server = Server::start(Manner::Keeps, SIZED, Duration::from_millis(100)).await;
    assert_eq!(server.whole().await, "hello");
    eventually("the engine sees the end", || server.ended.load(SeqCst) == 1).await;
    assert_eq!(server.whole().await, "hello");
    assert_eq!(server.accepted.load(SeqCst), 2);
}

#[tokio::test]
async fn no_connection_and_a_broken_one_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pool = Pool::new(format!("http://{free}").parse().unwrap(), plain(), KEEP).unwrap();
    let refused = pool.request(Request::new(Body::empty())).await;
    assert!(matches!(refused, Err(Error::Connect(_))), "{refused:?}");
    let server = Server::start(Manner::Closes, "", KEEP).await;
    assert!(matches!(server.get().await, Err(Error::Broken(_))));
}
