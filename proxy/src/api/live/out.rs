//! What goes to a client: messages, the close, and what comes of work beside the session.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::net::websocket::Message;

/// Work beside the session, such as a file to transcribe: its replies as they come. Dropping it ends it.
pub type Work = BoxStream<'static, Reply>;

/// What comes of work beside the session.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A JSON text message.
    Json(Value),
    /// The close, with its code and reason.
    Close(u16, String),
}

/// Pieces of work that may wait for the one that runs.
const MAX_WORK: usize = 16;

/// What goes to a client.
#[derive(Default)]
pub struct Out {
    pub(super) messages: Vec<Message>,
    pub(super) close: Option<(u16, String)>,
    /// What runs, and what waits for it.
    work: VecDeque<Work>,
}

impl Out {
    /// Sends a JSON text message.
    pub fn json(&mut self, value: &Value) {
        self.messages.push(Message::Text(value.to_string()));
    }

    /// Closes once all before it is sent.
    pub fn close(&mut self, code: u16, reason: impl Into<String>) {
        self.close.get_or_insert_with(|| (code, reason.into()));
    }

    /// Does work, after all that was asked for before it. `false` when too much waits.
    pub fn work(&mut self, work: Work) -> bool {
        let has_room = self.work.len() <= MAX_WORK;
        if has_room {
            self.work.push_back(work);
        }
        has_room
    }

    /// Ends the work that runs, and that which waits.
    pub fn end_work(&mut self) {
        self.work.clear();
    }

    /// Whether work runs.
    pub fn works(&self) -> bool {
        !self.work.is_empty()
    }

    /// The next reply; `None` at the end of a piece of work.
    pub(super) async fn reply(&mut self) -> Option<Reply> {
        let reply = self.work.front_mut()?.next().await;
        if reply.is_none() {
            self.work.pop_front();
        }
        reply
    }
}
