//! What was said in conversations, for their next turns: bounded in number, length and time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::Conversation;
use crate::job::chat::{Message, Role};

/// Longest name of a conversation, characters.
pub const MAX_NAME: usize = 128;
/// Characters of one conversation that are kept.
const MAX_CHARACTERS: usize = 32_000;

/// Conversations by whose they are and what they are called. Cloning shares them.
#[derive(Clone, Default)]
pub struct Memory {
    known: Arc<Mutex<HashMap<Name, Kept>>>,
}

/// A conversation: whose it is, and its name.
pub type Name = (String, String);

struct Kept {
    messages: Vec<Message>,
    used: Instant,
}

impl Memory {
    /// What was said, unless that was too long ago.
    pub fn recall(&self, name: &Name, limits: &Conversation, now: Instant) -> Vec<Message> {
        let known = self.known.lock();
        let kept = known.get(name).filter(|kept| now.saturating_duration_since(kept.used) < limits.ttl);
        kept.map(|kept| kept.messages.clone()).unwrap_or_default()
    }

    /// Keeps another turn. Beyond the limits the oldest messages go, and the conversation that was used least recently.
    pub fn keep(&self, name: &Name, user: String, assistant: String, limits: &Conversation, now: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, kept| now.saturating_duration_since(kept.used) < limits.ttl);
        if !known.contains_key(name) && known.len() >= limits.max_sessions {
            let oldest = known.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let kept = known.entry(name.clone()).or_insert_with(|| Kept { messages: Vec::new(), used: now });
        kept.used = now;
        kept.messages.push(Message::new(Role::User, user));
        if !assistant.is_empty() {
            kept.messages.push(Message::new(Role::Assistant, assistant));
        }
        let characters =
            |messages: &[Message]| messages.iter().map(|message| message.text.chars().count()).sum::<usize>();
        while kept.messages.len() > limits.max_messages
            || (kept.messages.len() > 1 && characters(&kept.messages) > MAX_CHARACTERS)
        {
            kept.messages.remove(0);
        }
    }

    /// Forgets a conversation.
    pub fn forget(&self, name: &Name) {
        self.known.lock().remove(name);
    }
}

/// A turn whose answer is in the making: dropped, what was said of it is kept. So an answer that was cut short counts as far as
/// it came.
pub struct Turn {
    memory: Memory,
    name: Name,
    limits: Conversation,
    user: String,
    /// What was answered so far.
    pub answer: String,
}

impl Turn {
    /// The turn of a conversation that begins with those words of the user.
    pub fn begin(memory: Memory, name: Name, limits: Conversation, user: String) -> Self {
        Self { memory, name, limits, user, answer: String::new() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (user, answer) = (std::mem::take(&mut self.user), std::mem::take(&mut self.answer));
        self.memory.keep(&self.name, user, answer, &self.limits, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn conversations_are_kept_apart_and_within_their_limits() {
        let limits = Conversation { max_sessions: 2, max_messages: 3, ..Conversation::default() };
        let (memory, start) = (Memory::default(), Instant::now());
        let name = |name: &str| ("owner".to_owned(), name.to_owned());
        let at = |seconds| start + Duration::from_secs(seconds);
        let texts = |of: &str, now| -> Vec<String> {
            memory.recall(&name(of), &limits, now).into_iter().map(|message| message.text).collect()
        };
        memory.keep(&name("a"), "1".into(), "2".into(), &limits, at(0));
        memory.keep(&name("a"), "3".into(), "4".into(), &limits, at(1));
        assert_eq!(texts("a", at(1)), ["2", "3", "4"]);
        assert!(memory.recall(&("other".into(), "a".into()), &limits, at(1)).is_empty());
        memory.keep(&name("b"), "5".into(), String::new(), &limits, at(2));
        memory.keep(&name("c"), "x".repeat(MAX_CHARACTERS), "y".into(), &limits, at(3));
        assert!(texts("a", at(3)).is_empty(), "the least recently used one goes");
        assert_eq!((texts("b", at(3)), texts("c", at(3))), (vec!["5".into()], vec!["y".into()]));
        let late = start + limits.ttl + Duration::from_secs(3);
        assert!(texts("b", late).is_empty());
        memory.forget(&name("c"));
        assert!(texts("c", at(4)).is_empty());
    }

    #[test]
    fn an_answer_that_was_cut_short_is_kept_as_far_as_it_came() {
        let (memory, name) = (Memory::default(), ("owner".to_owned(), "a".to_owned()));
        let mut turn = Turn::begin(memory.clone(), name.clone(), Conversation::default(), "Hi".into());
        turn.answer.push_str("Good");
        drop(turn);
        let kept = memory.recall(&name, &Conversation::default(), Instant::now());
        assert_eq!(kept, [Message::new(Role::User, "Hi"), Message::new(Role::Assistant, "Good")]);
    }
}
