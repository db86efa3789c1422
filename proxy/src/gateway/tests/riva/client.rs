//! A client of gRPC over one HTTP/2 connection, on hyper alone.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use crate::gateway::tests::stack::Stack;
use crate::grpc::{Code, Deframer, Status, open_frame};

type Body = BoxBody<Bytes, std::convert::Infallible>;

pub struct Client {
    sender: SendRequest<Body>,
    authority: String,
}

/// A call whose reply has begun.
pub struct Answer {
    pub headers: HeaderMap,
    body: Incoming,
    deframer: Deframer,
    ready: std::collections::VecDeque<Bytes>,
    status: Option<Status>,
}

/// The sending half of a call; dropping it says that nothing more comes.
pub struct Sending(mpsc::Sender<Bytes>);

impl Sending {
    pub async fn send(&mut self, message: &impl Message) {
        self.0.send(open_frame(&message.encode_to_vec(), 0).unwrap()).await.unwrap();
    }
}

pub fn metadata(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

impl Client {
    pub async fn connect(stack: &Stack) -> Self {
        let stream = TcpStream::connect(stack.address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, authority: stack.address.to_string() }
    }

    /// Begins a call whose messages are given one by one.
    pub async fn open(&mut self, path: &str, metadata: HeaderMap) -> (Sending, Answer) {
        let (sending, messages) = mpsc::channel(4);
        (Sending(sending), self.begin(path, messages, metadata).await)
    }

    /// Makes a call with these messages and nothing more.
    pub async fn call<T: Message>(&mut self, path: &str, messages: Vec<T>, metadata: HeaderMap) -> Answer {
        let frames = messages.iter().map(|message| open_frame(&message.encode_to_vec(), 0).unwrap());
        self.raw(path, frames.collect(), metadata).await
    }

    /// Makes a call with these bytes.
    pub async fn raw(&mut self, path: &str, frames: Vec<Bytes>, metadata: HeaderMap) -> Answer {
        self.begin(path, futures::stream::iter(frames), metadata).await
    }

    async fn begin(
        &mut self,
        path: &str,
        messages: impl Stream<Item = Bytes> + Send + Sync + 'static,
        metadata: HeaderMap,
    ) -> Answer {
        let body = StreamBody::new(messages.map(|bytes| Ok(Frame::data(bytes))));
        let mut request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(BodyExt::boxed(body))
            .unwrap();
        request.headers_mut().extend(metadata);
        let response = self.sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "gRPC has a status of its own");
        let (head, body) = response.into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc");
        let status = Status::read(&head.headers);
        Answer {
            headers: head.headers,
            body,
            deframer: Deframer::default(),
            ready: Default::default(),
            status,
        }
    }

    /// Makes a call with one message and awaits the only one that comes back.
    pub async fn unary<T: Message, R: Message + Default>(
        &mut self,
        path: &str,
        message: &T,
        metadata: HeaderMap,
    ) -> Result<R, Status> {
        let frame = open_frame(&message.encode_to_vec(), 0).unwrap();
        let mut answer = self.raw(path, vec![frame], metadata).await;
        let Some(first) = answer.next::<R>().await else { panic!("neither a message nor an error") };
        let first = first?;
        assert!(answer.next::<R>().await.is_none(), "a second message");
        Ok(first)
    }
}

impl Answer {
    /// The next message; `None` at a good end.
    pub async fn next<R: Message + Default>(&mut self) -> Option<Result<R, Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(R::decode(message).unwrap()));
            }
            if let Some(status) = &self.status {
                return (status.code != Code::Ok).then(|| Err(status.clone()));
            }
            let frame = self.body.frame().await.expect("the reply ended without a status").unwrap();
            match frame.into_data() {
                Ok(data) => self.ready.extend(self.deframer.push(data).unwrap()),
                Err(frame) => self.status = Status::read(frame.trailers_ref().unwrap()),
            }
        }
    }

    /// All messages and how the call ended.
    pub async fn all<R: Message + Default>(&mut self) -> (Vec<R>, Option<Status>) {
        let mut messages = Vec::new();
        while let Some(next) = self.next().await {
            match next {
                Ok(message) => messages.push(message),
                Err(status) => return (messages, Some(status)),
            }
        }
        (messages, None)
    }
}
