//! A process group in `/proc`: the engine that runs as our child, with its workers.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::vitals::ThreadCounts;
use procfs::FromRead;
use procfs::process::Stat;

/// Between two searches for new members. Each costs a read for every process of the machine.
const RESCAN: Duration = Duration::from_secs(5);
/// Processes that are looked at in a search, and members that are kept.
const MAX_PROCESSES: usize = 32_768;
const MAX_MEMBERS: usize = 256;
/// Threads that are counted.
const MAX_THREADS: u32 = 4096;
/// `/proc` shows CPU time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);
/// A line of `stat` is shorter.
const STAT_BYTES: u64 = 1024;
/// What is read of `cgroup` and `cpu.stat`.
const CGROUP_BYTES: u64 = 4096;

/// What the processes of a group use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and kernel time, own and of children that were waited for.
    pub cpu: Duration,
    /// Time for which threads that could run waited for a CPU, added up over all threads that live.
    pub waited: Duration,
    /// Threads by state.
    pub threads: ThreadCounts,
    /// Resident memory, bytes.
    pub memory: u64,
}

/// The members of one process group, found now and then.
#[derive(Debug)]
pub struct Group {
    leader: i32,
    members: Vec<i32>,
    scanned: Option<Instant>,
}

impl Group {
    /// The group of that leader.
    pub fn new(leader: i32) -> Self {
        Self { leader, members: Vec::new(), scanned: None }
    }

    /// The process that leads it.
    pub fn leader(&self) -> i32 {
        self.leader
    }

    /// Reads all members; `None` when there is none.
    pub fn usage(&mut self, proc: &Path, now: Instant) -> Option<Usage> {
        if self.scanned.is_none_or(|scanned| now.saturating_duration_since(scanned) >= RESCAN) {
            self.members = members(proc, self.leader);
            self.scanned = Some(now);
        }
        let mut usage = Usage::default();
        let mut seen = false;
        for pid in &self.members {
            let process = proc.join(pid.to_string());
            // A number may have gone to a process of another group meanwhile.
            let Some(stat) = stat(&process).filter(|stat| stat.pgrp == self.leader) else { continue };
            seen = true;
            let waited = stat.cutime.saturating_add(stat.cstime).try_into().unwrap_or(0);
            let ticks = stat.utime.saturating_add(stat.stime).saturating_add(waited);
            usage.cpu =
                usage.cpu.saturating_add(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)));
            usage.memory = usage.memory.saturating_add(stat.rss.saturating_mul(procfs::page_size()));
            look_at_threads(&process, &stat, &mut usage);
        }
        seen.then_some(usage)
    }
}

/// The processes in the group of that leader.
pub fn members(proc: &Path, leader: i32) -> Vec<i32> {
    let in_group = |pid: &i32| stat(&proc.join(pid.to_string())).is_some_and(|stat| stat.pgrp == leader);
    numbered(proc).take(MAX_PROCESSES).filter(in_group).take(MAX_MEMBERS).collect()
}

/// Names of entries that are numbers.
pub fn numbered(folder: &Path) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The line `stat` of a process or thread.
pub fn stat(process: &Path) -> Option<Stat> {
    let file = fs::File::open(process.join("stat")).ok()?;
    Stat::from_read(file.take(STAT_BYTES)).ok()
}

fn look_at_threads(process: &Path, stat: &Stat, usage: &mut Usage) {
    if stat.num_threads <= 1 {
        usage.threads.count(stat.state);
        usage.waited = usage.waited.saturating_add(waited(process));
        return;
    }
    let task = process.join("task");
    for thread in numbered(&task) {
        if usage.threads.alive() >= MAX_THREADS {
            return;
        }
        let thread = task.join(thread.to_string());
        if let Some(stat) = self::stat(&thread) {
            usage.threads.count(stat.state);
            usage.waited = usage.waited.saturating_add(waited(&thread));
        }
    }
}

/// Time for which a thread that could run waited for a CPU: the second number of `schedstat`, nanoseconds. Zero where the kernel
/// does not count it.
fn waited(thread: &Path) -> Duration {
    let text = read(&thread.join("schedstat")).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Time for which the CPU limit held the group's cgroup back so far. `None` without cgroup v2.
pub fn throttled(proc: &Path, leader: i32, cgroups: &Path) -> Option<Duration> {
    let own = read(&proc.join(leader.to_string()).join("cgroup"))?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let named: PathBuf = cgroups.join(path).join("cpu.stat");
    // With a cgroup namespace of our own the root is our container's group.
    let stat = (!path.contains("..")).then(|| read(&named)).flatten();
    let stat = stat.or_else(|| read(&cgroups.join("cpu.stat")))?;
    let value = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?;
    Some(Duration::from_micros(value.trim().parse().ok()?))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(CGROUP_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    fn process(proc: &Path, pid: i32, group: i32, state: char, ticks: u64, states: &str) {
        let line = |state: char, threads: usize| {
            format!(
                "{pid} (python3) {state} 1 {group} {group} 0 -1 4194304 100 0 0 0 {ticks} 5 3 2 20 0 {threads} 0 900 \
                 1000000 256 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            )
        };
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("stat"), line(state, states.len())).unwrap();
        for (at, state) in states.chars().enumerate() {
            let thread = folder.join("task").join((pid + at as i32).to_string());
            fs::create_dir_all(&thread).unwrap();
            fs::write(thread.join("stat"), line(state, states.len())).unwrap();
            fs::write(thread.join("schedstat"), "9000000 250000000 3\n").unwrap();
        }
    }

    #[test]
    fn a_groups_workers_count_and_others_do_not() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 100, 100, 'S', 90, "SRD");
        process(proc.path(), 200, 100, 'D', 10, "D");
        process(proc.path(), 300, 300, 'R', 1000, "R");
        fs::create_dir_all(proc.path().join("self")).unwrap();
        let now = Instant::now();
        let mut group = Group::new(100);
        let usage = group.usage(proc.path(), now).unwrap();
        let threads = ThreadCounts { running: 1, sleeping: 1, blocked: 2, ..ThreadCounts::default() };
        assert_eq!(usage.threads, threads);
        assert_eq!(usage.cpu, Duration::from_millis(1200));
        assert_eq!(usage.waited, Duration::from_millis(750), "of the three threads that have a count");
        assert_eq!(usage.memory, 512 * procfs::page_size());
        // The number of a worker goes to another group; a new worker is found after a while.
        fs::remove_dir_all(proc.path().join("200")).unwrap();
        process(proc.path(), 200, 300, 'R', 10, "R");
        process(proc.path(), 400, 100, 'R', 10, "R");
        assert_eq!(group.usage(proc.path(), now).unwrap().threads.alive(), 3);
        assert_eq!(group.usage(proc.path(), now + RESCAN).unwrap().threads.alive(), 4);
        assert_eq!(Group::new(7).usage(proc.path(), now), None);
    }

    #[test]
    fn a_busy_child_of_this_process_is_seen_to_use_its_cpu() {
        let command = "while :; do :; done & wait";
        let mut child = Command::new("sh").args(["-c", command]).process_group(0).spawn().unwrap();
        let leader = child.id() as i32;
        let deadline = Instant::now() + Duration::from_secs(60);
        let busy = loop {
            let usage = Group::new(leader).usage(Path::new("/proc"), Instant::now());
            if usage.is_some_and(|usage| usage.cpu >= TICK && usage.threads.alive() == 2 && usage.memory > 0)
            {
                break true;
            }
            if Instant::now() > deadline {
                break false;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(leader), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        child.wait().unwrap();
        assert!(busy);
    }

    #[test]
    fn the_limits_account_is_found_by_the_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let (proc, cgroups) = (root.path().join("proc"), root.path().join("cgroup"));
        fs::create_dir_all(proc.join("7")).unwrap();
        fs::create_dir_all(cgroups.join("a/b")).unwrap();
        fs::write(cgroups.join("cpu.stat"), "usage_usec 1\nthrottled_usec 5\n").unwrap();
        let micros = |own: &str| {
            fs::write(proc.join("7/cgroup"), own).unwrap();
            throttled(&proc, 7, &cgroups).map(|throttled| throttled.as_micros())
        };
        assert_eq!(micros("0::/a/b\n"), Some(5), "no such file there");
        fs::write(cgroups.join("a/b/cpu.stat"), "throttled_usec 9\n").unwrap();
        assert_eq!(micros("3:cpu:/x\n0::/a/b\n"), Some(9));
        assert_eq!(micros("0::/../a/b\n"), Some(5));
        assert_eq!(micros("3:cpu:/x\n"), None, "cgroup v1 alone");
        assert_eq!(throttled(&proc, 8, &cgroups), None);
    }
}
