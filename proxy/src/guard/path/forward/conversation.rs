//! Conversations over WebSocket: a client's handshake is answered once the engine has taken the same one, and both sides' messages
//! pass as those of any other call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use trace::Span;

use super::Forward;
use super::sent::Sent;
use crate::guard::protocols::Job;
use crate::net::websocket::{Handshake, answer};
use crate::protocol::Transport;

/// Messages of a client that wait for the engine.
const MESSAGES: usize = 16;
/// How long a conversation may go on when the guard stops; then its client is sent to another engine.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the client says, for the engine. The sender that is dropped ends it well.
struct Said {
    messages: mpsc::Receiver<Bytes>,
    sent: Arc<Sent>,
}

impl Forward {
    /// Serves the request of a handshake. What is none goes to the engine as it is, for its own answer.
    pub(super) async fn websocket(
        self: &Arc<Self>,
        job: Job,
        mut request: Request<Incoming>,
        span: Span,
    ) -> Response<Body> {
        let Ok(handshake) = Handshake::of(&mut request) else {
            return self.pass_through(request, Transport::Http, span).await;
        };
        let rules = self.protocols.codec(job.protocol).rules();
        let (messages, said) = mpsc::channel(MESSAGES);
        let prepare = |forward: &Self| {
            let sent = Arc::<Sent>::default();
            let body = Body::new(Said { messages: said, sent: Arc::clone(&sent) });
            let mut request = forward.upstream(request.into_parts().0, body, Transport::WebSocket);
            request.extensions_mut().insert(rules);
            (request, sent)
        };
        let tally = self.metrics.tally(span);
        let served = self.converse(job, prepare, tally.clone()).await;
        let reply = self.settled(served, job, &tally);
        if !reply.status().is_success() {
            return reply;
        }
        let (head, reply) = reply.into_parts();
        let mut accepted = handshake.response(None);
        if let Some(protocol) = head.headers.get(SEC_WEBSOCKET_PROTOCOL) {
            accepted.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        let begun = self.drain.clone();
        let stop = async move {
            begun.begun().await;
            tokio::time::sleep(GOODBYE).await;
        };
        self.drain.spawn(answer(handshake, messages, reply, rules, contract::header::RETRY, stop));
        accepted
    }
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let message = ready!(self.messages.poll_recv(context));
        match &message {
            Some(message) => self.sent.push(message),
            None => self.sent.end(Ok(())),
        }
        Poll::Ready(message.map(|message| Ok(Frame::data(message))))
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        // The engine does not want the rest, so that the client is not awaited any more.
        self.sent.end(Ok(()));
    }
}
