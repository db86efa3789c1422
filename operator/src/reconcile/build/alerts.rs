//! The alerts of one stack. Each asks a person for something, and is silent while engines start for the first time.

use serde_json::{Value, json};

/// One alert, before it is that of a stack.
struct Alert {
    /// Its name, that of its page in `docs/runbooks` too.
    name: &'static str,
    /// PromQL. `OF` stands for the labels of the stack in the operator's metrics, `AT` in those of its pods; `EACH` for the
    /// labels that a stack's pods are grouped by.
    expr: &'static str,
    /// How long it holds before it fires.
    wait: &'static str,
    severity: &'static str,
    /// One sentence, with the labels that differ.
    summary: &'static str,
    /// What it means, after the stack's name.
    description: &'static str,
}

const ALERTS: [Alert; 9] = [
    Alert {
        name: "SpeechStackEngineDown",
        expr: "max by (stack_namespace, stack, engine) (speechstack_replicas{OF,state=\"verified\"}) == 0 \
               and max by (stack_namespace, stack, engine) (speechstack_replicas{OF,state=\"desired\"}) > 0 \
               and on (stack_namespace, stack) max by (stack_namespace, stack) (speechstack_condition{OF,condition=\"Degraded\"}) == 1",
        wait: "5m",
        severity: "critical",
        summary: "No replica of engine {{ $labels.engine }} serves.",
        description: "none of the replicas of {{ $labels.engine }} is proven by inference, and it is no first start.",
    },
    Alert {
        name: "SpeechStackReplicasMissing",
        expr: "max by (stack_namespace, stack, engine) (speechstack_replicas{OF,state=\"verified\"}) \
               < max by (stack_namespace, stack, engine) (speechstack_replicas{OF,state=\"desired\"}) \
               and on (stack_namespace, stack) max by (stack_namespace, stack) (speechstack_condition{OF,condition=\"Degraded\"}) == 1",
        wait: "30m",
        severity: "warning",
        summary: "Replicas of engine {{ $labels.engine }} are missing.",
        description: "fewer replicas of {{ $labels.engine }} serve than desired.",
    },
    Alert {
        name: "SpeechStackRepairSuspended",
        expr: "max by (stack_namespace, stack) (speechstack_repair_suspended{OF}) > 0",
        wait: "1m",
        severity: "critical",
        summary: "Repair of an engine stopped.",
        description: "repair did not help or its budget is used up; see `kubectl describe spch`.",
    },
    Alert {
        name: "SpeechStackPreflightFailed",
        expr: "max by (stack_namespace, stack) (speechstack_condition{OF,condition=\"PreflightPassed\"}) == 0",
        wait: "10m",
        severity: "warning",
        summary: "What a stack needs does not exist.",
        description: "a Secret, a claim or a fitting node is missing, or the spec cannot be carried out; the condition \
                      PreflightPassed says which.",
    },
    Alert {
        name: "SpeechStackKillStuck",
        expr: "max by (EACH, pod) (speechstack_state{AT,state=\"kill_stuck\"}) == 1",
        wait: "5m",
        severity: "critical",
        summary: "The engine of pod {{ $labels.pod }} survives SIGKILL.",
        description: "the process of pod {{ $labels.pod }} hangs in the kernel and holds its GPU; its node needs a person.",
    },
    Alert {
        name: "SpeechStackConfigError",
        expr: "max by (EACH, pod) (speechstack_state{AT,state=\"config_error\"}) == 1",
        wait: "5m",
        severity: "critical",
        summary: "The engine of pod {{ $labels.pod }} cannot run as it is configured.",
        description: "a restart cannot help the engine of pod {{ $labels.pod }}: its log says what it lacks.",
    },
    Alert {
        name: "SpeechStackClientErrors",
        expr: "sum by (EACH) (rate(speechstack_gateway_requests_total{AT,status=~\"5xx|cut\"}[10m])) \
               / sum by (EACH) (rate(speechstack_gateway_requests_total{AT}[10m])) > 0.05",
        wait: "10m",
        severity: "critical",
        summary: "{{ $value | humanizePercentage }} of the requests fail.",
        description: "retries and repair do not keep failures from clients.",
    },
    Alert {
        name: "SpeechStackOverload",
        expr: "sum by (EACH) (rate(speechstack_guard_requests_total{AT,outcome=\"shed\"}[15m])) \
               / sum by (EACH) (rate(speechstack_guard_requests_total{AT}[15m])) > 0.05",
        wait: "30m",
        severity: "warning",
        summary: "{{ $value | humanizePercentage }} of the jobs find the queues full.",
        description: "there are too few engines for the load of the last half hour.",
    },
    Alert {
        name: "SpeechStackFalseRestarts",
        expr: "sum by (EACH) (increase(speechstack_false_restarts_total{AT}[1h])) > 0",
        wait: "0m",
        severity: "warning",
        summary: "An engine was restarted without a failed golden probe.",
        description: "no proof was at hand when it was restarted; this should not happen and is worth a report.",
    },
];

/// All alerts of the stack of that namespace and name, as rules of a PrometheusRule.
pub fn of(namespace: &str, name: &str) -> Value {
    let of = format!(r#"stack="{name}",stack_namespace="{namespace}""#);
    let at = format!(r#"namespace="{namespace}",speechstack_dev_stack="{name}""#);
    let rule = |alert: &Alert| {
        // The words are followed by what no name of a metric or label has.
        let expr = alert.expr.replace("{OF", &format!("{{{of}")).replace("{AT", &format!("{{{at}"));
        let expr = expr.replace("(EACH", "(namespace, speechstack_dev_stack");
        json!({
            "alert": alert.name,
            "expr": expr,
            "for": alert.wait,
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": format!("Stack {namespace}/{name}: {}", alert.description),
                "runbook": format!("docs/runbooks/{}.md", alert.name),
            },
        })
    };
    ALERTS.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_about_one_stack_and_have_a_page_each() {
        let rules = of("speech", "demo");
        let rules = rules.as_array().unwrap();
        assert_eq!(rules.len(), ALERTS.len());
        for rule in rules {
            let expr = rule["expr"].as_str().unwrap();
            for word in ["OF", "AT", "EACH"] {
                assert!(!expr.contains(word), "{expr}");
            }
            assert!(expr.contains(r#"stack="demo""#) && expr.contains(r#"namespace="speech""#), "{expr}");
            let page = rule["annotations"]["runbook"].as_str().unwrap();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
            assert!(path.is_file(), "no page {page}");
        }
    }
}
