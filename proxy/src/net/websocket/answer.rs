//! The server's side of a conversation that is passed on: the client's messages become the body of a request, the messages of the
//! reply go to the client, and its status becomes the close; see [`crate::conversation`].

use std::pin::pin;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::{Handshake, Message, Received, Socket};
use crate::conversation::{self, BINARY, ELSEWHERE, Rules, TEXT};
use crate::grpc::{Code, Deframer, Status};

/// Longest message of a client.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Holds the conversation of `handshake` to its end: what the client says goes to `request`, what the reply says to the client.
/// `again` is the name of the trailer by which a failed reply says that another engine may take over. When `stop` resolves, the
/// client is sent there.
pub async fn answer(
    handshake: Handshake,
    request: mpsc::Sender<Bytes>,
    mut reply: Body,
    rules: Rules,
    again: HeaderName,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let Ok(mut socket) = handshake.connect(MAX_MESSAGE_BYTES).await else { return };
    let mut request = Some(request);
    let mut deframer = Deframer::default();
    let (code, reason) = loop {
        tokio::select! {
            () = &mut stop => break (ELSEWHERE, "the guard is stopping".to_owned()),
            // The client waits when the engine does; else nothing is read that has no place.
            received = next(&mut socket, request.as_ref()) => match received {
                Received::Text(text) => {
                    put(request.as_ref(), TEXT, text.as_bytes());
                    if (rules.closes)(text.as_bytes()) {
                        request = None;
                    }
                }
                Received::Binary(bytes) => put(request.as_ref(), BINARY, &bytes),
                Received::Alive => {}
                Received::Closed => break (1000, String::new()),
                Received::Fault(code, reason) => break (code, reason.to_owned()),
            },
            frame = reply.frame() => match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if send(&mut socket, &mut deframer, data).await.is_err() {
                            return;
                        }
                    }
                    Err(frame) => break ending(frame.trailers_ref(), &again),
                },
                Some(Err(_)) => break (1011, "the engine's conversation broke off".to_owned()),
                None => break (1000, String::new()),
            },
        }
    };
    drop(reply);
    socket.close(code, &reason).await;
}

/// The client's next message, once there is room for it.
async fn next(socket: &mut Socket, request: Option<&mpsc::Sender<Bytes>>) -> Received {
    if let Some(request) = request {
        // A request that is not wanted any more takes everything.
        let _ = request.reserve().await;
    }
    socket.next().await
}

/// Passes a message of the client on, for which there is room.
fn put(request: Option<&mpsc::Sender<Bytes>>, flag: u8, message: &[u8]) {
    if let Some(request) = request {
        let _ = request.try_send(conversation::frame(flag, message));
    }
}

/// Sends the messages that `data` completes to the client.
async fn send(socket: &mut Socket, deframer: &mut Deframer, data: Bytes) -> Result<(), ()> {
    for (flag, message) in deframer.push_flagged(data, BINARY).map_err(|_| ())? {
        let message = match flag {
            TEXT => Message::Text(String::from_utf8(message.into()).map_err(|_| ())?),
            _ => Message::Binary(message),
        };
        socket.send(message).await.map_err(|_| ())?;
    }
    Ok(())
}

/// Close code and reason of a reply that ends with these trailers.
fn ending(trailers: Option<&HeaderMap>, again: &HeaderName) -> (u16, String) {
    let status = trailers.and_then(Status::read);
    let reason = status.as_ref().map(|status| status.message.clone()).unwrap_or_default();
    let code = match status.map(|status| status.code) {
        Some(Code::Ok) => 1000,
        _ if trailers.is_some_and(|trailers| trailers.contains_key(again)) => ELSEWHERE,
        Some(Code::InvalidArgument) => 1008,
        _ => 1011,
    };
    (code, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_says_how_the_reply_ended() {
        let again = HeaderName::from_static("x-again");
        let ended = |code, retry: bool| {
            let mut trailers = Status { code, message: "out of 100 %".into() }.trailers();
            if retry {
                trailers.insert("x-again", http::HeaderValue::from_static("1"));
            }
            ending(Some(&trailers), &again)
        };
        assert_eq!(ended(Code::Ok, false).0, 1000);
        assert_eq!(ended(Code::Internal, true), (1013, "out of 100 %".into()));
        assert_eq!(ended(Code::InvalidArgument, true).0, 1013);
        assert_eq!(ended(Code::InvalidArgument, false).0, 1008);
        assert_eq!(ended(Code::Internal, false).0, 1011);
        assert_eq!(ending(None, &again).0, 1011);
    }
}
