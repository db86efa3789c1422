//! The restart request: which container instance is to be restarted, and why.

/// What is read of the file.
pub const MOST_BYTES: u64 = 4096;
/// What the kubelet is shown of the reason.
const REASON_CHARS: usize = 256;

/// A restart request as the guard wrote it: the instance on the first line, the reason on the second.
#[derive(Debug, PartialEq, Eq)]
pub struct RestartRequest {
    instance: String,
    reason: String,
}

impl RestartRequest {
    /// Reads the file's text; `None` when it names no instance.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let instance = lines.next().map(str::trim).filter(|line| !line.is_empty())?;
        let reason = lines.next().map(str::trim).filter(|line| !line.is_empty()).unwrap_or("no reason given");
        let reason = reason.chars().filter(|char| !char.is_control()).take(REASON_CHARS).collect();
        Some(Self { instance: instance.to_owned(), reason })
    }

    /// The reason, if it is this instance that is failed.
    pub fn against(&self, instance: &str) -> Option<&str> {
        (self.instance == instance).then_some(self.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, instance: &str) -> Option<String> {
        RestartRequest::parse(text).and_then(|request| request.against(instance).map(str::to_owned))
    }

    #[test]
    fn only_the_named_instance_fails() {
        assert_eq!(verdict("7-ab\nclass A\n", "7-ab").as_deref(), Some("class A"));
        assert_eq!(verdict("7-ab\nclass A\n", "7-ac"), None);
        assert_eq!(verdict("7-ab\nclass A\n", "7-a"), None);
        assert_eq!(verdict("7-a", "7-ab"), None, "half a line is another instance");
        assert_eq!(verdict("7-ab", "7-ab").as_deref(), Some("no reason given"));
    }

    #[test]
    fn a_file_without_an_instance_restarts_nothing() {
        for text in ["", "\n", "  \nclass A\n", "\0"] {
            assert_eq!(verdict(text, ""), None, "{text:?}");
            assert_eq!(verdict(text, "7-ab"), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        let shown = verdict(&format!("7-ab\n\u{1b}[31m{}\nmore", "x".repeat(9999)), "7-ab").unwrap();
        assert!(shown.chars().count() == REASON_CHARS && !shown.contains('\u{1b}'));
    }
}
