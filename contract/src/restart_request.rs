//! The files by which a guard has the kubelet restart one life of an engine's container, and drain it.
//!
//! Guard and engine container share a folder in memory. The liveness helper runs in the engine's container each second; it
//! fails only when the restart request names its own container, so a request that comes late restarts nothing.

/// The helper describes its container here: its key on the first line.
pub const INSTANCE: &str = "instance";
/// The restart request: the key of the container that must be restarted, then the reason, a line each.
pub const RESTART: &str = "restart";
/// Present while the container is about to be stopped.
pub const DRAIN: &str = "drain";
/// Present once the guard has drained the engine.
pub const DRAINED: &str = "drained";
/// What a guard has proven, for one that comes after it: the key of the container, then the seconds that its start took.
pub const PROVEN: &str = "proven";
/// The helper's program.
pub const HELPER: &str = "livez";
/// The folder in pods that the operator makes.
pub const FOLDER: &str = "/run/speechstack";
/// Longest reason, characters.
pub const REASON_CHARS: usize = 256;

/// The text of a restart request.
#[must_use]
pub fn text(instance: &str, reason: &str) -> String {
    let reason: String = reason.chars().filter(|char| !char.is_control()).take(REASON_CHARS).collect();
    format!("{instance}\n{reason}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let text = text("7-ab", &format!("class\nA\u{1b}{}", "x".repeat(1000)));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("7-ab"));
        assert_eq!(lines.next().map(|line| line.chars().count()), Some(REASON_CHARS));
        assert_eq!(lines.next(), None);
    }
}
