use parking_lot::Mutex;

use contract::{Capability, Class};

use crate::guard::heal::child::*;

fn engine(command: &[&str]) -> config::Engine {
    config::Engine {
        name: "engine-0".into(),
        capability: Capability::Stt,
        url: "http://127.0.0.1:1".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..config::Engine::example()
    }
}

fn output(sink: impl std::io::Write + Send + 'static) -> Output {
    Output::new("engine-0", Arc::new(Catalogue::new(&[])), sink)
}

fn start(engine: &config::Engine, repair: &config::Repair) -> Result<ChildProcess, Error> {
    ChildProcess::start(engine, repair, output(std::io::sink()))
}

#[tokio::test]
async fn a_restart_replaces_the_process_and_a_late_order_does_nothing() {
    let repair = config::Repair::default();
    let supervisor = start(&engine(&["sleep", "600"]), &repair).unwrap();
    let first = supervisor.instance().borrow().key.clone();
    supervisor.restart(first.clone(), Kill::AtOnce, String::new()).await.unwrap();
    let second = supervisor.instance().borrow().clone();
    assert_ne!(first, second.key);
    assert_eq!(second.life, Life::Running);
    assert!(matches!(supervisor.restart(first, Kill::AtOnce, String::new()).await, Err(Error::Late)));
    assert_eq!(supervisor.instance().borrow().key, second.key);
    supervisor.stop().await;
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let repair = config::Repair { grace: Duration::from_millis(200), ..Default::default() };
    let command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"];
    let supervisor = start(&engine(&command), &repair).unwrap();
    let key = supervisor.instance().borrow().key.clone();
    supervisor.restart(key.clone(), Kill::Graceful, String::new()).await.unwrap();
    assert_ne!(supervisor.instance().borrow().key, key);
    supervisor.stop().await;
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_reported_and_started_on_order() {
    let supervisor = start(&engine(&["true"]), &config::Repair::default()).unwrap();
    let mut instance = supervisor.instance();
    let seen = instance.wait_for(|instance| instance.life == Life::Exited).await.unwrap().clone();
    supervisor.restart(seen.key.clone(), Kill::Graceful, String::new()).await.unwrap();
    assert_ne!(supervisor.instance().borrow().key, seen.key);
    supervisor.stop().await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    let error = start(&engine(&["no-such-engine"]), &config::Repair::default()).unwrap_err();
    assert!(error.to_string().contains("no-such-engine"));
}

/// What was written.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_process_prints_is_passed_on_and_says_why_it_ended() {
    let sink = Sink::default();
    let script = "echo out; echo 'RuntimeError: no kernel image is available' >&2; printf 'no end of line'";
    let engine = engine(&["sh", "-c", script]);
    let child = ChildProcess::start(&engine, &config::Repair::default(), output(sink.clone())).unwrap();
    let mut instance = child.instance();
    let key = instance.wait_for(|instance| instance.life == Life::Exited).await.unwrap().key.clone();
    let finding = Some((Class::Environment, "no_kernel_image".to_owned()));
    assert_eq!(child.last_words().finding, finding);
    let record = child.record(&key).unwrap();
    assert_eq!(record.finding, finding);
    assert_eq!(record.process.log, ["RuntimeError: no kernel image is available"]);
    child.stop().await;
    drop(child); // writes what waits
    let deadline = Instant::now() + Duration::from_secs(60);
    let all = ["out\n", "RuntimeError: no kernel image is available\n", "no end of line\n"];
    let whole = |text: &str| all.iter().all(|line| text.contains(line));
    while !whole(&String::from_utf8_lossy(&sink.0.lock())) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_process_is_recorded_before_it_is_killed() {
    let engine = engine(&["sh", "-c", "echo 'fatal: stuck' >&2; sleep 600 & wait"]);
    let child = start(&engine, &config::Repair::default()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.last_words().lines.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = child.instance().borrow().key.clone();
    child.restart(key.clone(), Kill::AtOnce, String::new()).await.unwrap();
    let process = child.record(&key).unwrap().process;
    assert_eq!(process.log, ["fatal: stuck"]);
    assert!(process.threads.unwrap().alive() >= 2, "the worker too: {process:?}");
    assert!(process.dump.iter().any(|thread| thread.name == "sleep"), "{process:?}");
    child.stop().await;
}

#[tokio::test]
async fn the_next_process_starts_with_nothing_said() {
    let engine = engine(&["sh", "-c", "echo 'fatal: once' >&2; exec sleep 600"]);
    let child = start(&engine, &config::Repair::default()).unwrap();
    let first = child.instance().borrow().key.clone();
    child.restart(first, Kill::AtOnce, String::new()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.last_words().lines.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(child.last_words().lines, ["fatal: once"]);
    child.stop().await;
}
