//! Panics: one in any task is the end of the process, so that none goes on without a part of it.

use std::panic;

use tokio::sync::mpsc;

/// Has every panic reported, with its place, besides being printed.
pub fn watch() -> mpsc::UnboundedReceiver<String> {
    let (sender, panics) = mpsc::unbounded_channel();
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        // None waits when the process is about to end.
        let _ = sender.send(place);
    }));
    panics
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_panic_of_a_task_is_reported_with_its_place() {
        let mut panics = super::watch();
        let task = tokio::spawn(async { panic!("of a test") });
        assert!(task.await.is_err());
        let place = panics.recv().await.unwrap();
        assert!(place.contains("panics.rs"), "{place}");
    }
}
