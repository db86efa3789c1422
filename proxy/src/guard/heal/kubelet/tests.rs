use std::fs;
use std::path::{Path, PathBuf};

use contract::Capability;

use crate::guard::heal::kubelet::*;
use crate::guard::path::lane::Priority;
use crate::guard::path::lane::testing::claim;

/// A run folder, and the test as the kubelet with its helper.
struct Node {
    dir: tempfile::TempDir,
    lane: Lane,
    kubelet: Kubelet,
}

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

fn engine(url: &str) -> config::Engine {
    config::Engine {
        name: "engine-0".into(),
        capability: Capability::Stt,
        url: url.into(),
        ..config::Engine::example()
    }
}

fn probe(dir: &Path, key: &str) {
    fs::write(dir.join(".tmp"), format!("{key}\n")).unwrap();
    fs::rename(dir.join(".tmp"), dir.join("instance")).unwrap();
}

fn start(dir: &Path, url: &str, stuck_after: Duration) -> (Lane, std::io::Result<Kubelet>) {
    let helper = dir.join("helper-of-the-image");
    fs::write(&helper, "#!").unwrap();
    let settings = config::Kubelet { dir: dir.into(), helper, direct_kill: false };
    let repair = config::Repair { stuck_after, ..Default::default() };
    let lane = Lane::new(&config::Lane::default());
    (lane.clone(), Kubelet::start(&engine(url), &settings, &repair, lane))
}

impl Node {
    fn start(before: impl FnOnce(&Path), stuck_after: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        before(dir.path());
        let (lane, kubelet) = start(dir.path(), "http://127.0.0.1:1", stuck_after);
        Self { dir, lane, kubelet: kubelet.unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn runs(&self, key: &str) {
        let mut instance = self.kubelet.instance();
        let runs = instance.wait_for(|instance| instance.key == key && instance.life == Life::Running);
        assert!(timeout(TEST_TIMEOUT, runs).await.unwrap().is_ok());
    }

    async fn appears(&self, name: &str) {
        let path = self.path(name);
        let appears = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TEST_TIMEOUT, appears).await.unwrap();
    }
}

#[tokio::test]
async fn the_helper_is_there_and_what_an_earlier_guard_left_is_not() {
    let node = Node::start(
        |dir| {
            for name in ["restart", "drain", "drained"] {
                fs::write(dir.join(name), "7-ab\n").unwrap();
            }
        },
        TEST_TIMEOUT,
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(node.path("livez")).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(!node.path("restart").exists() && !node.path("drain").exists() && !node.path("drained").exists());
    assert_eq!(node.kubelet.instance().borrow().life, Life::Awaited);
}

#[tokio::test]
async fn without_the_helper_there_is_no_guard() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        config::Kubelet { dir: dir.path().into(), helper: dir.path().join("absent"), direct_kill: false };
    let lane = Lane::new(&config::Lane::default());
    let started = Kubelet::start(&engine("http://127.0.0.1:1"), &settings, &config::Repair::default(), lane);
    assert!(started.unwrap_err().to_string().contains("absent"));
}

#[tokio::test]
async fn what_is_proven_outlives_the_guard() {
    let node = Node::start(|_| {}, TEST_TIMEOUT);
    assert_eq!(node.kubelet.proven(), None);
    for key in [Some("7-ab".to_owned()), None] {
        let proven = Proven { key, start: Duration::from_millis(12_500) };
        node.kubelet.keep(&proven);
        let (_, next) = start(node.dir.path(), "http://127.0.0.1:1", TEST_TIMEOUT);
        assert_eq!(next.unwrap().proven(), Some(proven));
    }
    for broken in ["", "7-ab\n", "7-ab\nsoon\n", "7-ab\n-1\n"] {
        fs::write(node.path("proven"), broken).unwrap();
        assert_eq!(node.kubelet.proven(), None, "{broken:?}");
    }
}

#[tokio::test]
async fn an_order_waits_for_the_next_container_and_never_hits_it() {
    let node = Node::start(|_| {}, TEST_TIMEOUT);
    probe(node.dir.path(), "7-ab");
    node.runs("7-ab").await;
    let restart = tokio::spawn(node.kubelet.restart("7-ab".into(), Kill::AtOnce, "class A\nx".into()));
    node.appears("restart").await;
    assert_eq!(fs::read_to_string(node.path("restart")).unwrap(), "7-ab\nclass Ax\n");
    probe(node.dir.path(), "7-ab"); // the probe that reads the request
    assert!(!restart.is_finished());
    probe(node.dir.path(), "8-cd");
    assert!(timeout(TEST_TIMEOUT, restart).await.unwrap().unwrap().is_ok());
    node.runs("8-cd").await;
    assert!(!node.path("restart").exists());
    let late = node.kubelet.restart("7-ab".into(), Kill::AtOnce, String::new()).await;
    assert!(matches!(late, Err(Error::Late)));
    assert!(!node.path("restart").exists());
}

#[tokio::test]
async fn nothing_can_be_ordered_of_a_container_that_was_never_seen() {
    let node = Node::start(|_| {}, TEST_TIMEOUT);
    let order = node.kubelet.restart(String::new(), Kill::AtOnce, String::new()).await;
    assert!(matches!(order, Err(Error::Late)));
    assert!(!node.path("restart").exists());
}

#[tokio::test]
async fn a_container_that_outlives_its_restart_request_is_stuck_until_another_runs() {
    let dir = tempfile::tempdir().unwrap();
    probe(dir.path(), "7-ab");
    let engine = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", engine.local_addr().unwrap());
    let (lane, kubelet) = start(dir.path(), &url, Duration::from_millis(200));
    let node = Node { dir, lane, kubelet: kubelet.unwrap() };
    let stuck = node.kubelet.restart("7-ab".into(), Kill::AtOnce, String::new());
    assert!(matches!(timeout(TEST_TIMEOUT, stuck).await.unwrap(), Err(Error::Stuck)));
    assert_eq!(node.kubelet.instance().borrow().life, Life::Stuck);
    assert!(node.path("restart").exists(), "the kubelet may still manage");
    probe(node.dir.path(), "8-cd");
    node.runs("8-cd").await;
}

#[test]
fn a_dead_container_that_waits_for_the_kubelet_is_not_stuck() {
    let limit = Duration::from_secs(30);
    assert!(lives_on(Some(Duration::from_secs(1)), 0, limit), "its probe still runs");
    assert!(lives_on(Some(Duration::from_secs(30)), OPEN_LOOKS, limit), "its port stays open");
    assert!(!lives_on(Some(Duration::from_secs(30)), 1, limit), "the next container's port");
    assert!(!lives_on(Some(Duration::from_secs(29)), 0, limit));
    assert!(!lives_on(None, 0, limit));
}

#[tokio::test]
async fn a_drain_waits_until_the_lane_is_idle() {
    let node = Node::start(|dir| probe(dir, "7-ab"), TEST_TIMEOUT);
    let mut ticket = node.lane.enqueue(claim(1.0, Priority::Short), std::time::Instant::now()).unwrap();
    let slot = ticket.granted().await.unwrap();
    fs::write(node.path("drain"), "7-ab\n").unwrap();
    let mut draining = node.kubelet.draining();
    assert!(timeout(TEST_TIMEOUT, draining.wait_for(|draining| *draining)).await.unwrap().is_ok());
    tokio::time::sleep(2 * SETTLE).await;
    assert!(!node.path("drained").exists());
    drop(slot);
    node.appears("drained").await;
    // The helper of a second stop takes the word away and asks anew.
    fs::remove_file(node.path("drained")).unwrap();
    node.appears("drained").await;
    probe(node.dir.path(), "8-cd");
    assert!(timeout(TEST_TIMEOUT, draining.wait_for(|draining| !*draining)).await.unwrap().is_ok());
    assert!(!node.path("drain").exists());
}

#[tokio::test]
async fn what_the_helper_counted_is_recorded_of_the_very_container() {
    let node = Node::start(|dir| probe(dir, "7-ab"), TEST_TIMEOUT);
    let threads = contract::vitals::ThreadCounts { running: 1, blocked: 2, ..Default::default() };
    let vitals = contract::Vitals { instance: "7-ab".into(), unix_ms: 1, threads, ..Default::default() };
    fs::write(node.path("vitals"), vitals.to_string()).unwrap();
    let restart = tokio::spawn(node.kubelet.restart("7-ab".into(), Kill::AtOnce, String::new()));
    node.appears("restart").await;
    probe(node.dir.path(), "8-cd");
    assert!(timeout(TEST_TIMEOUT, restart).await.unwrap().unwrap().is_ok());
    let record = node.kubelet.record("7-ab").unwrap();
    assert_eq!((record.process.threads, record.process.dump, record.finding), (Some(threads), vec![], None));
    // The file is still that of the container before.
    let restart = tokio::spawn(node.kubelet.restart("8-cd".into(), Kill::AtOnce, String::new()));
    node.appears("restart").await;
    probe(node.dir.path(), "9-ef");
    assert!(timeout(TEST_TIMEOUT, restart).await.unwrap().unwrap().is_ok());
    assert_eq!(node.kubelet.record("8-cd").unwrap().process.threads, None);
}
