//! Conversations over WebSocket in the form in which they pass through the proxy: messages with their lengths before, and a
//! status after, as those of gRPC.

use bytes::Bytes;

use crate::grpc::{PREFIX_LEN, Status, frame_prefix};

/// Flag before a text message.
pub const TEXT: u8 = 0;
/// Flag before a binary message.
pub const BINARY: u8 = 1;
/// Close code for "try again later": another engine may hold the same conversation.
pub const ELSEWHERE: u16 = 1013;

/// What the messages of a protocol mean for a conversation as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether a client's text message is its last.
    pub closes: fn(&[u8]) -> bool,
    /// What an engine's text message means.
    pub said: fn(&[u8]) -> Said,
    /// Whether a failure is followed by a close that says whether another engine may take over, as guards do.
    pub is_vouched: bool,
}

impl Rules {
    /// These rules, spoken with a guard.
    #[must_use]
    pub fn vouched(self) -> Self {
        Self { is_vouched: true, ..self }
    }
}

impl Default for Rules {
    /// The engine ends conversations by closing them.
    fn default() -> Self {
        Self { closes: |_| false, said: |_| Said::More, is_vouched: false }
    }
}

/// What a message of an engine means for its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It goes on.
    More,
    /// All that was asked for is answered.
    Last,
    /// It has failed.
    Failed(Status),
}

/// A message with its flag and length before.
#[must_use]
pub fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_LEN + message.len());
    frame.extend_from_slice(&frame_prefix(u32::try_from(message.len()).unwrap_or(u32::MAX)));
    if let Some(first) = frame.first_mut() {
        *first = flag;
    }
    frame.extend_from_slice(message);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Deframer;

    #[test]
    fn frames_tell_texts_from_bytes_and_are_read_as_those_of_grpc() {
        let frames = [frame(TEXT, b"{}"), frame(BINARY, &[1, 2, 3])].concat();
        let read = Deframer::default().push_flagged(frames.into(), BINARY).unwrap();
        assert_eq!(read, [(TEXT, Bytes::from_static(b"{}")), (BINARY, Bytes::from_static(&[1, 2, 3]))]);
        assert_eq!(Deframer::default().push(frame(TEXT, b"so")).unwrap(), ["so"]);
        assert!(Deframer::default().push(frame(BINARY, b"so")).is_err());
    }
}
