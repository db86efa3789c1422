//! The binary against a folder, as the kubelet runs it.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn livez(dir: &Path, rest: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_speechstack-livez")).arg("--dir").arg(dir).args(rest).output().unwrap()
}

fn instance(dir: &Path) -> String {
    assert!(livez(dir, &[]).status.success());
    std::fs::read_to_string(dir.join("instance")).unwrap().trim().to_owned()
}

#[test]
fn it_fails_only_for_its_own_instance() {
    let dir = tempfile::tempdir().unwrap();
    let key = instance(dir.path());
    assert_eq!(instance(dir.path()), key, "every process of a container has the same key");
    std::fs::write(dir.path().join("restart"), format!("{key}x\nclass A")).unwrap();
    assert!(livez(dir.path(), &[]).status.success());
    std::fs::write(dir.path().join("restart"), format!("{key}\nclass A")).unwrap();
    let failed = livez(dir.path(), &[]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&failed.stdout), "restart requested: class A\n");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no temporary files: {left:?}");
}

#[test]
fn each_run_refreshes_the_instance() {
    let dir = tempfile::tempdir().unwrap();
    instance(dir.path());
    let file = std::fs::File::options().append(true).open(dir.path().join("instance")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    instance(dir.path());
    let modified = std::fs::metadata(dir.path().join("instance")).unwrap().modified().unwrap();
    assert!(modified > std::time::SystemTime::UNIX_EPOCH);
}

#[test]
fn each_run_tells_how_busy_the_container_is() {
    let dir = tempfile::tempdir().unwrap();
    let key = instance(dir.path());
    let text = std::fs::read_to_string(dir.path().join(contract::vitals::VITALS)).unwrap();
    let vitals = contract::Vitals::parse(&text).unwrap();
    assert_eq!(vitals.instance, key);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!(now.abs_diff(vitals.unix_ms) < 60_000);
    // At least this test's own threads: it is a process of the helper's container.
    assert!(vitals.threads.alive() >= 1, "{text}");
    std::fs::remove_file(dir.path().join("vitals")).unwrap();
    std::fs::create_dir_all(dir.path().join("vitals/in-the-way")).unwrap();
    let passed = livez(dir.path(), &[]);
    assert!(passed.status.success() && passed.stderr.is_empty(), "{passed:?}");
}

#[test]
fn every_error_is_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    assert!(livez(&dir.path().join("absent"), &[]).status.success());
    assert!(livez(dir.path(), &["nonsense"]).status.success());
    assert!(livez(dir.path(), &["drain"]).status.success());
    assert!(livez(&dir.path().join("absent"), &["drain", "60"]).status.success());
    std::fs::create_dir(dir.path().join("restart")).unwrap();
    assert!(livez(dir.path(), &[]).status.success());
    std::fs::remove_dir(dir.path().join("restart")).unwrap();
    std::fs::write(dir.path().join("restart"), [0xff, 0xfe, 0xfd]).unwrap();
    assert!(livez(dir.path(), &[]).status.success());
}

#[test]
fn a_drain_waits_for_the_guard() {
    let dir = tempfile::tempdir().unwrap();
    // Of an earlier drain: it must not end this one.
    std::fs::write(dir.path().join("drained"), "").unwrap();
    let path = dir.path().to_owned();
    let guard = std::thread::spawn(move || {
        while !path.join("drain").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!path.join("drained").exists());
        std::fs::write(path.join("drained"), "").unwrap();
    });
    let started = Instant::now();
    assert!(livez(dir.path(), &["drain", "60"]).status.success());
    assert!(started.elapsed() < Duration::from_secs(30));
    guard.join().unwrap();
}

#[test]
fn a_drain_ends_without_the_guard_and_never_starts_for_an_engine_that_is_to_be_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let key = instance(dir.path());
    assert!(livez(dir.path(), &["drain", "1"]).status.success());
    assert!(dir.path().join("drain").exists());
    std::fs::remove_file(dir.path().join("drain")).unwrap();
    std::fs::write(dir.path().join("restart"), format!("{key}\nclass A")).unwrap();
    let started = Instant::now();
    assert!(livez(dir.path(), &["drain", "600"]).status.success());
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(!dir.path().join("drain").exists());
}
