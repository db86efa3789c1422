//! Tells the health loop what the engine printed.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use contract::Class;

use crate::guard::heal::output::OutputHint;
use crate::guard::judge::observation::{Hint, Observation};
use crate::guard::path::observer::Observer;

/// Reports each hint as an observation, until the engine's output is gone.
pub async fn observe(mut hints: broadcast::Receiver<OutputHint>, observer: Observer) {
    loop {
        match hints.recv().await {
            Ok(hint) => {
                if let Some(hint) = doubt(hint) {
                    observer.observe(Observation::Hint(hint));
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// A log is weaker proof than a reply, as engines also log what clients send: a text of the A family only raises the
/// doubt of class B, which probes decide. Lack of memory counts by the requests that it failed, and an unfit
/// environment when the process ends.
fn doubt(hint: OutputHint) -> Option<Hint> {
    match hint.class {
        Class::Memory | Class::Environment => None,
        class => Some(Hint {
            class: if class.is_sticky() { Class::Ambiguous } else { class },
            signature: Some(hint.signature),
            status: None,
            body: Some(hint.line),
            request_hash: None,
            started: hint.seen,
            seen: hint.seen,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn hint(class: Class) -> OutputHint {
        let (signature, line) = ("illegal_address".to_owned(), "CUDA error".to_owned());
        OutputHint { class, signature, line, seen: Instant::now() }
    }

    #[tokio::test]
    async fn a_printed_text_raises_a_doubt_and_proves_nothing() {
        let (observer, mut observations) = Observer::channel();
        let (hints, receiver) = broadcast::channel(4);
        for class in [Class::Memory, Class::Environment, Class::Sticky] {
            hints.send(hint(class)).unwrap();
        }
        drop(hints);
        observe(receiver, observer).await;
        let seen = observations.recv().await.map(|seen| seen.observation);
        let Some(Observation::Hint(seen)) = seen else { panic!("no hint") };
        assert_eq!((seen.class, seen.signature.as_deref()), (Class::Ambiguous, Some("illegal_address")));
        assert_eq!(seen.status, None, "a log line is no progress");
        assert!(observations.recv().await.is_none(), "nothing else");
    }
}
