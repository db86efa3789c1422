//! What the properties of a unit say of the engine in it.

use std::collections::HashMap;

use zbus::OwnedVariant;

use crate::guard::heal::actuator::{Instance, Life};

/// Properties of one D-Bus interface of the unit.
pub(super) type Properties = HashMap<String, OwnedVariant>;

/// A unit as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The engine; its key is the unit's invocation id in hex.
    pub(super) instance: Instance,
    /// Whether the unit has a file.
    pub(super) loaded: bool,
    /// Restarts that systemd did by itself.
    pub(super) restarts: u32,
}

impl Seen {
    /// Reads the properties of the interfaces `Unit` and `Service`.
    pub(super) fn read(unit: &Properties, service: &Properties) -> Self {
        let invocation = unit.get("InvocationID").and_then(bytes).unwrap_or_default();
        let key = invocation.iter().map(|byte| format!("{byte:02x}")).collect();
        let life = life(text(unit, "ActiveState"), text(unit, "SubState"), number(service, "MainPID"));
        let loaded = !matches!(text(unit, "LoadState"), "not-found" | "error" | "bad-setting" | "masked");
        Self { instance: Instance { key, life }, loaded, restarts: number(service, "NRestarts") }
    }
}

/// A unit that only waits for its next start has no process; one that is being ended still has.
fn life(active: &str, sub: &str, main_pid: u32) -> Life {
    match (active, sub) {
        ("inactive" | "failed", _) => Life::Exited,
        ("activating", "auto-restart" | "auto-restart-queued") => Life::Exited,
        ("deactivating", _) if main_pid == 0 => Life::Exited,
        _ => Life::Running,
    }
}

fn text<'a>(properties: &'a Properties, name: &str) -> &'a str {
    properties.get(name).and_then(|value| value.downcast_ref::<&str>().ok()).unwrap_or_default()
}

fn number(properties: &Properties, name: &str) -> u32 {
    properties.get(name).and_then(|value| value.downcast_ref::<u32>().ok()).unwrap_or_default()
}

fn bytes(value: &OwnedVariant) -> Option<Vec<u8>> {
    Vec::<u8>::try_from(value.try_clone().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    fn properties<const N: usize>(values: [(&str, Variant<'static>); N]) -> Properties {
        values.into_iter().map(|(name, value)| (name.to_owned(), value.try_into_owned().unwrap())).collect()
    }

    #[test]
    fn an_invocation_is_an_instance() {
        let unit = properties([
            ("ActiveState", "active".into()),
            ("SubState", "running".into()),
            ("LoadState", "loaded".into()),
            ("InvocationID", vec![0x0a_u8, 0xff].into()),
        ]);
        let service = properties([("MainPID", 7_u32.into()), ("NRestarts", 2_u32.into())]);
        let instance = Instance { key: "0aff".into(), life: Life::Running };
        assert_eq!(Seen::read(&unit, &service), Seen { instance, loaded: true, restarts: 2 });
    }

    #[test]
    fn a_unit_without_a_file_is_not_loaded() {
        let unit = properties([("ActiveState", "inactive".into()), ("LoadState", "not-found".into())]);
        let seen = Seen::read(&unit, &Properties::new());
        assert!(!seen.loaded);
        assert_eq!(seen.instance, Instance { key: String::new(), life: Life::Exited });
    }

    #[test]
    fn a_unit_runs_until_its_main_process_is_gone() {
        for (active, sub, pid, expected) in [
            ("active", "running", 7, Life::Running),
            ("reloading", "reload", 7, Life::Running),
            ("activating", "start", 7, Life::Running),
            ("activating", "start-pre", 0, Life::Running),
            ("activating", "auto-restart", 0, Life::Exited),
            ("deactivating", "stop-sigterm", 7, Life::Running),
            ("deactivating", "final-sigkill", 7, Life::Running),
            ("deactivating", "stop-post", 0, Life::Exited),
            ("failed", "failed", 0, Life::Exited),
            ("inactive", "dead", 0, Life::Exited),
        ] {
            assert_eq!(life(active, sub, pid), expected, "{active} {sub} {pid}");
        }
    }
}
