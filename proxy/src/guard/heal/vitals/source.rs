//! Where samples of an engine come from.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contract::Vitals;
use contract::vitals::{MAX_BYTES, VITALS};

use crate::guard::heal::vitals::Sample;
use crate::guard::heal::vitals::group::{Group, throttled};

/// Where samples come from. To read one blocks for as long as `/proc` takes: milliseconds.
#[derive(Debug)]
pub enum Source {
    /// The file that the liveness helper writes into the folder shared with the engine's container.
    Helper(Helper),
    /// The process group of a child of ours.
    Child(Child),
}

impl Source {
    /// Reads the file in that folder.
    pub fn helper(folder: &Path) -> Self {
        Self::Helper(Helper { path: folder.join(VITALS), last: None })
    }

    /// Reads the group whose leader is stored there; 0 while there is none.
    pub fn child(leader: Arc<AtomicI32>) -> Self {
        Self::Child(Child { leader, group: Group::new(0) })
    }

    /// A sample and the instance that it is of; `None` when there is none since the last call.
    pub fn sample(&mut self, now: Instant) -> Option<(String, Sample)> {
        match self {
            Self::Helper(helper) => helper.sample(now, SystemTime::now()),
            Self::Child(child) => child.sample(now),
        }
    }
}

/// Reads the liveness helper's file.
#[derive(Debug)]
pub struct Helper {
    path: PathBuf,
    /// What was read last, and when.
    last: Option<(Vitals, Instant)>,
}

impl Helper {
    fn sample(&mut self, now: Instant, wall: SystemTime) -> Option<(String, Sample)> {
        let vitals = read(&self.path)?;
        let last = self.last.replace((vitals.clone(), now));
        let known = |last: &Vitals| last.unix_ms == vitals.unix_ms && last.instance == vitals.instance;
        if last.as_ref().is_some_and(|(last, _)| known(last)) {
            return None;
        }
        // It was written since the last look: the clock may have been set since then.
        let written = UNIX_EPOCH + Duration::from_millis(vitals.unix_ms);
        let age = wall.duration_since(written).unwrap_or_default();
        let age = last.map_or(age, |(_, looked)| age.min(now.saturating_duration_since(looked)));
        let sample = Sample {
            at: now.checked_sub(age)?,
            cpu: Duration::from_micros(vitals.process_cpu_usec),
            throttled: Duration::from_micros(vitals.throttled_usec.unwrap_or(0)),
            waited: Duration::from_micros(vitals.pressure_some.map_or(0, |pressure| pressure.total_usec)),
            running: vitals.threads.running,
            blocked: vitals.threads.blocked,
            threads: vitals.threads.alive(),
            memory: vitals.memory_bytes.unwrap_or(0),
        };
        Some((vitals.instance, sample))
    }
}

/// The file's content. The engine's container can put anything in its place, a pipe too: opening it must not wait.
pub fn read(path: &Path) -> Option<Vitals> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).ok()?;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Vitals::parse(&String::from_utf8_lossy(&text))
}

/// Reads a process group.
#[derive(Debug)]
pub struct Child {
    leader: Arc<AtomicI32>,
    group: Group,
}

impl Child {
    fn sample(&mut self, now: Instant) -> Option<(String, Sample)> {
        let leader = self.leader.load(Ordering::Acquire);
        if leader <= 0 {
            return None;
        }
        if self.group.leader() != leader {
            self.group = Group::new(leader);
        }
        let proc = Path::new("/proc");
        let usage = self.group.usage(proc, now)?;
        let sample = Sample {
            at: now,
            cpu: usage.cpu,
            throttled: throttled(proc, leader, Path::new("/sys/fs/cgroup")).unwrap_or_default(),
            waited: usage.waited,
            running: usage.threads.running,
            blocked: usage.threads.blocked,
            threads: usage.threads.alive(),
            memory: usage.memory,
        };
        Some((leader.to_string(), sample))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use contract::vitals::ThreadCounts;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn vitals(instance: &str, unix: u64) -> Vitals {
        Vitals {
            instance: instance.into(),
            unix_ms: unix * 1000,
            process_cpu_usec: 2_000_000,
            threads: ThreadCounts { running: 1, sleeping: 5, blocked: 2, ..ThreadCounts::default() },
            throttled_usec: Some(30),
            pressure_some: Some(contract::vitals::Pressure { avg10: 1.0, total_usec: 70 }),
            memory_bytes: Some(77),
            ..Vitals::default()
        }
    }

    #[test]
    fn the_helpers_file_gives_a_sample_each_time_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut helper = Helper { path: dir.path().join(VITALS), last: None };
        let now = Instant::now() + SECOND * 100;
        let wall = |seconds: u64| UNIX_EPOCH + SECOND * seconds as u32;
        assert_eq!(helper.sample(now, wall(1000)), None);
        fs::write(&helper.path, vitals("7-ab", 990).to_string()).unwrap();
        let (instance, sample) = helper.sample(now, wall(1000)).unwrap();
        let expected = Sample {
            at: now - SECOND * 10,
            cpu: SECOND * 2,
            throttled: Duration::from_micros(30),
            waited: Duration::from_micros(70),
            running: 1,
            blocked: 2,
            threads: 8,
            memory: 77,
        };
        assert_eq!((instance.as_str(), sample), ("7-ab", expected));
        assert_eq!(helper.sample(now + SECOND, wall(1001)), None, "the same again");
        // The clock is set forward by an hour just after the file was written.
        fs::write(&helper.path, vitals("7-ab", 1002).to_string()).unwrap();
        let (_, sample) = helper.sample(now + SECOND * 2, wall(4602)).unwrap();
        assert_eq!(sample.at, now + SECOND, "not before the last look");
        // And back.
        fs::write(&helper.path, vitals("7-ab", 4603).to_string()).unwrap();
        let (_, sample) = helper.sample(now + SECOND * 3, wall(1003)).unwrap();
        assert_eq!(sample.at, now + SECOND * 3);
    }

    #[test]
    fn whatever_stands_in_the_files_place_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VITALS);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read(&path), None);
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![0xff; 100_000]).unwrap();
        assert_eq!(read(&path), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn a_child_is_sampled_while_there_is_one() {
        let leader = Arc::new(AtomicI32::new(0));
        let mut source = Source::child(leader.clone());
        assert_eq!(source.sample(Instant::now()), None);
        let own = nix::unistd::getpgrp().as_raw();
        leader.store(own, Ordering::Release);
        let (instance, sample) = source.sample(Instant::now()).unwrap();
        assert_eq!(instance, own.to_string());
        assert!(sample.threads >= 1, "{sample:?}");
    }
}
