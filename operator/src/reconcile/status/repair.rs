//! What the record of repairs means for the stack's conditions: pure.

use speechstack_crds::condition::{Judged, condition_type, reason};
use speechstack_crds::{Repair, RepairStatus};

/// `RepairSuspended` and `CorrelatedFailure`, from the spec and the record.
#[must_use]
pub fn conditions(spec: &Repair, status: Option<&RepairStatus>) -> [Judged; 2] {
    [suspended(spec, status), correlated(status)]
}

fn suspended(spec: &Repair, status: Option<&RepairStatus>) -> Judged {
    let stopped = status.map(|status| status.stopped.as_slice()).unwrap_or_default();
    let (holds, why, message) = match stopped {
        _ if spec.hold => {
            (true, reason::HELD, "spec.repair.hold is true; wedged engines stay out of rotation".to_owned())
        }
        [] => (false, reason::NONE, "wedged engines are repaired as spec.repair says".to_owned()),
        [first, ..] => {
            let messages: Vec<String> =
                stopped.iter().map(|stopped| format!("{}: {}", stopped.engine, stopped.message)).collect();
            (true, known(&first.reason), messages.join("; "))
        }
    };
    Judged { kind: condition_type::REPAIR_SUSPENDED, status: Some(holds), reason: why, message }
}

/// The reason as a constant; whatever an older operator wrote counts as used up.
fn known(text: &str) -> &'static str {
    let reasons = [reason::FUTILE, reason::ROLLOUT_SUSPECT];
    reasons.into_iter().find(|reason| *reason == text).unwrap_or(reason::BUDGET_EXHAUSTED)
}

fn correlated(status: Option<&RepairStatus>) -> Judged {
    let engines = status.map(|status| status.correlated.as_slice()).unwrap_or_default();
    let message = match engines {
        [] => "replicas do not wedge together".to_owned(),
        engines => format!(
            "replicas of {} wedged within a minute of each other: they are repaired one by one, each verified before \
             the next",
            engines.join(", ")
        ),
    };
    Judged {
        kind: condition_type::CORRELATED_FAILURE,
        status: Some(!engines.is_empty()),
        reason: if engines.is_empty() { reason::NONE } else { reason::CORRELATED },
        message,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use speechstack_crds::Stopped;

    use super::*;

    #[test]
    fn the_record_tells_what_is_suspended_and_what_is_correlated() {
        let spec = Repair::default();
        let [suspended, correlated] = conditions(&spec, None);
        assert_eq!((suspended.status, correlated.status), (Some(false), Some(false)));
        let stopped = |reason: &str| Stopped {
            engine: "e".into(),
            reason: reason.into(),
            message: "why".into(),
            since: MicroTime(jiff::Timestamp::UNIX_EPOCH),
        };
        for (text, expected) in [
            (reason::FUTILE, reason::FUTILE),
            (reason::ROLLOUT_SUSPECT, reason::ROLLOUT_SUSPECT),
            ("older", reason::BUDGET_EXHAUSTED),
        ] {
            let status = RepairStatus {
                stopped: vec![stopped(text)],
                correlated: vec!["e".into()],
                ..RepairStatus::default()
            };
            let [suspended, correlated] = conditions(&spec, Some(&status));
            assert_eq!((suspended.status, suspended.reason), (Some(true), expected));
            assert_eq!(suspended.message, "e: why");
            assert_eq!((correlated.status, correlated.reason), (Some(true), reason::CORRELATED));
        }
        let held = Repair { hold: true, ..Repair::default() };
        assert_eq!(conditions(&held, None)[0].reason, reason::HELD);
    }
}
