//! How a process starts, answers late, ends, and what it says before.

use crate::guard::heal::control::tests::*;
use crate::guard::judge::verdict::verdict;

#[tokio::test(start_paused = true)]
async fn an_incident_names_the_known_text_in_the_log_and_keeps_nothing_else_of_it() {
    let stack = Stack::start(policy()).await;
    let log = "heard: my secret\nRuntimeError: CUDA error: unspecified launch failure\n";
    *stack.actuator.log.lock() = Some(log.to_owned());
    stack.actuator.instance.send_modify(|instance| instance.life = Life::Exited);
    let incident = stack.heals().await;
    assert_eq!(incident.signature.as_deref(), Some("launch_failure"));
    assert!(!serde_json::to_string(&incident).unwrap().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_dies_long_after_its_kill_is_started_again() {
    let stack = Stack::start(policy()).await;
    stack.actuator.instance.send_modify(|instance| instance.life = Life::Stuck);
    stack.reaches(State::KillStuck).await;
    assert!(stack.actuator.kills.lock().is_empty());
    stack.actuator.instance.send_modify(|instance| instance.life = Life::Exited);
    stack.heals().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_answers_late_is_not_restarted() {
    let mut rules = policy();
    rules.probe.timeout_min = Duration::from_millis(100);
    rules.probe.timeout_max = Duration::from_millis(100);
    let stack = Stack::start(rules).await;
    *stack.fake.mode.lock() = Mode::Slow(Duration::from_millis(350));
    let asked = stack.fake.asked.load(Ordering::Relaxed);
    let deadline = clock() + TEST_TIMEOUT;
    while stack.fake.asked.load(Ordering::Relaxed) < asked + 8 && clock() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(stack.fake.asked.load(Ordering::Relaxed) >= asked + 8);
    assert!(stack.actuator.kills.lock().is_empty());
    stack.reaches(State::Healthy).await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_takes_over_what_an_earlier_one_has_proven() {
    let proven = |key: &str| Proven { key: Some(key.into()), start: Duration::from_secs(7) };
    let stack = Stack::adopting(policy(), proven("parakeet-0/1"));
    stack.reaches(State::Healthy).await;
    *stack.fake.mode.lock() = Mode::Hung;
    stack.heals().await;
    let kept = stack.actuator.kept.lock().clone().unwrap();
    assert_eq!(kept.key.as_deref(), Some("parakeet-0/1+"), "the next life");
    // Another life than the proven one has to be proven.
    let stack = Stack::adopting(policy(), proven("parakeet-0/0"));
    assert!(!stack.snapshot.standing().borrow().serves());
    stack.reaches(State::Healthy).await;
}

#[test]
fn a_container_that_has_not_started_is_awaited_without_end() {
    let now = clock();
    let policy = Policy::default();
    let mut evidence = Evidence::new(Capability::Stt, false, now);
    evidence.awaited = true;
    let judged = |evidence: &Evidence| {
        verdict(evidence, &LaneView::default(), &policy, now + 2 * policy.startup.budget)
    };
    assert_eq!(judged(&evidence), Verdict::Starting);
    evidence.awaited = false;
    assert_eq!(judged(&evidence), Verdict::Unstartable);
}
