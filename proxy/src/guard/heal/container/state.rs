//! What a container's state says of the engine in it.

use serde::Deserialize;

use crate::guard::heal::actuator::{Instance, Life};

/// What is read of an answer to `GET /containers/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
    restarting: bool,
    started_at: String,
}

/// The engine in a container, from the container engine's answer: its key is `id/time of start`.
pub(super) fn instance(answer: &[u8]) -> Result<Instance, serde_json::Error> {
    let Container { id, state } = serde_json::from_slice(answer)?;
    Ok(Instance { key: format!("{id}/{}", state.started_at), life: life(&state) })
}

/// The container's id in an instance's key.
pub(super) fn id(key: &str) -> Option<&str> {
    key.split_once('/').map(|(id, _)| id).filter(|id| !id.is_empty())
}

/// When an instance was started, seconds since 1970; 0 when its key does not say so.
pub(super) fn started(key: &str) -> i32 {
    let at = key.split_once('/').and_then(|(_, at)| at.parse::<jiff::Timestamp>().ok());
    at.and_then(|at| i32::try_from(at.as_second()).ok()).unwrap_or(0)
}

/// A paused container is one that runs: its probes fail, and what was paused can be killed.
fn life(state: &State) -> Life {
    match state.running && !state.restarting {
        true => Life::Running,
        false => Life::Exited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Instance {
        instance(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_start_of_a_container_is_an_instance() {
        let first =
            read(r#"{"Id": "abc", "State": {"Status": "running", "Running": true, "StartedAt": "T1"}}"#);
        assert_eq!(first, Instance { key: "abc/T1".into(), life: Life::Running });
        let second =
            read(r#"{"Id": "abc", "State": {"Status": "running", "Running": true, "StartedAt": "T2"}}"#);
        assert_ne!(first.key, second.key);
        assert_eq!(id(&second.key), Some("abc"));
        assert_eq!(id(""), None);
    }

    #[test]
    fn the_start_of_an_instance_is_in_its_key() {
        // Docker writes UTC, Podman the local time.
        assert_eq!(started("abc/2026-11-26T04:00:00.123456789Z"), 1_795_665_600);
        assert_eq!(started("abc/2026-11-26T05:00:00.5+01:00"), 1_795_665_600);
        assert_eq!([started("abc/0001-01-01T00:00:00Z"), started("abc"), started("")], [0, 0, 0]);
    }

    #[test]
    fn what_does_not_run_has_ended() {
        for state in [
            r#"{"Status": "created", "Running": false}"#,
            r#"{"Status": "exited", "Running": false, "ExitCode": 137}"#,
            r#"{"Status": "stopped", "Running": false}"#,
            r#"{"Status": "restarting", "Running": true, "Restarting": true}"#,
            r#"{"Status": "dead", "Dead": true}"#,
            "{}",
        ] {
            let seen = read(&format!(r#"{{"Id": "abc", "State": {state}}}"#));
            assert_eq!(seen.life, Life::Exited, "{state}");
        }
        let paused = read(r#"{"Id": "abc", "State": {"Status": "paused", "Running": true, "Paused": true}}"#);
        assert_eq!(paused.life, Life::Running);
    }
}
