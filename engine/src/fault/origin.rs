//! What faults look at in the request behind an inference, besides its audio or text.

/// The request behind an inference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// How it is answered.
    pub reply: Reply,
    /// The text that F42 repeats, if there is any.
    pub echo: Option<Echo>,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reply {
    /// By a whole body over HTTP.
    #[default]
    Whole,
    /// By one message over gRPC.
    Unary,
    /// Message by message, or piece by piece over HTTP.
    Streamed,
}

/// A text of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// Where it stood.
    pub field: &'static str,
    /// As the client sent it.
    pub text: String,
}

impl Origin {
    /// A request that is answered like this; of its `texts` the first that is there and not empty may be repeated.
    #[must_use]
    pub fn new(reply: Reply, texts: &[(&'static str, Option<&str>)]) -> Self {
        let given =
            texts.iter().find_map(|(field, text)| Some((*field, text.filter(|text| !text.is_empty())?)));
        Self { reply, echo: given.map(|(field, text)| Echo { field, text: text.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_text_that_is_not_empty_may_be_repeated() {
        let echo = |texts: &[(&'static str, Option<&str>)]| Origin::new(Reply::Whole, texts).echo;
        let model = Echo { field: "model", text: "m".into() };
        assert_eq!(echo(&[("prompt", Some("")), ("model", Some("m")), ("file", Some("f"))]), Some(model));
        assert_eq!(echo(&[("prompt", None), ("file", Some(""))]), None);
    }
}
