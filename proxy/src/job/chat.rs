//! A conversation that a language model continues: what it is given, and what it says.

use serde_json::Value;

/// A conversation, and how it is to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// What was said so far, in order.
    pub messages: Vec<Message>,
    /// Longest answer, tokens; the server's own limit when unset.
    pub max_tokens: Option<u32>,
    /// Sampling temperature, from 0 to 2.
    pub temperature: Option<f64>,
    /// Share of probability that is sampled from, above 0 up to 1.
    pub top_p: Option<f64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Functions that the model may call, an array in OpenAI's form that is passed on as it is.
    pub tools: Option<Value>,
    /// Which of them it must call; passed on as it is.
    pub tool_choice: Option<Value>,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The operator of the service: how to answer.
    System,
    /// The client.
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

impl Role {
    /// The name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// The role of that name; `developer` is what newer models call the system.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            "tool" | "function" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What.
    pub text: String,
    /// Calls of functions that the model made with it, as it made them.
    pub calls: Option<Value>,
    /// The call that it answers.
    pub answers: Option<String>,
}

impl Message {
    /// A plain text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), calls: None, answers: None }
    }
}

impl Chat {
    /// A conversation of these messages.
    pub fn of(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Characters of all that was said.
    pub fn characters(&self) -> usize {
        self.messages.iter().map(|message| message.text.chars().count()).sum()
    }
}

/// A piece of what a language model says.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// What the answer grew by, never empty.
    Text(String),
    /// It thinks, which is no part of the answer.
    Thought,
    /// Calls of functions, an array as the server sent it.
    Calls(Value),
    /// Why the answer ends, as the server says: `stop`, `length`, `tool_calls`.
    End(String),
    /// What it cost, tokens.
    Usage {
        /// Of what was given.
        given: u64,
        /// Of what was made.
        made: u64,
    },
}
