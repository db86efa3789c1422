//! The threads of the engine's processes by state, and the CPU time of those processes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Threads that are counted.
const MOST_THREADS: u32 = 4096;
/// `/proc` shows CPU time in hundredths of a second.
const TICK_USEC: u64 = 10_000;
/// A line of `stat` is shorter.
const STAT_BYTES: u64 = 1024;

/// Threads by the state that the kernel shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Threads {
    /// `R`.
    pub running: u32,
    /// `S`, `I`.
    pub sleeping: u32,
    /// `D`.
    pub blocked: u32,
    /// `Z`, `X`.
    pub zombie: u32,
    /// Any other state.
    pub other: u32,
    /// User and kernel time of the processes and of the children they waited for, microseconds.
    pub cpu_usec: u64,
    /// Whether some were left out, for their number or for want of time.
    pub partial: bool,
}

impl Threads {
    fn count(&mut self, state: u8) {
        let counter = match state {
            b'R' => &mut self.running,
            b'S' | b'I' => &mut self.sleeping,
            b'D' => &mut self.blocked,
            b'Z' | b'X' => &mut self.zombie,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    fn counted(&self) -> u32 {
        self.running + self.sleeping + self.blocked + self.zombie + self.other
    }
}

/// Counts the threads of all processes in `proc` but this one and those of other containers.
pub fn count(proc: &Path, budget: Duration) -> Threads {
    let started = Instant::now();
    let mut threads = Threads::default();
    let own = std::process::id().to_string();
    let container = container(&proc.join("self"));
    for process in numbered(proc) {
        let is_own = process.file_name().is_some_and(|name| name.to_str() == Some(&own));
        // Where the pod shares one process namespace, the other containers differ in their root.
        let elsewhere = container.as_deref().is_some_and(|own| is_elsewhere(&process, own));
        if is_own || elsewhere {
            continue;
        }
        if threads.counted() >= MOST_THREADS || started.elapsed() >= budget {
            threads.partial = true;
            break;
        }
        let Some(stat) = stat(&process).as_deref().and_then(Stat::parse) else { continue };
        threads.cpu_usec = threads.cpu_usec.saturating_add(stat.ticks.saturating_mul(TICK_USEC));
        if stat.threads <= 1 {
            threads.count(stat.state);
            continue;
        }
        for thread in numbered(&process.join("task")) {
            if threads.counted() >= MOST_THREADS || started.elapsed() >= budget {
                threads.partial = true;
                break;
            }
            if let Some(stat) = self::stat(&thread).as_deref().and_then(Stat::parse) {
                threads.count(stat.state);
            }
        }
    }
    threads
}

fn container(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// Whether it is known to be of another container. What may not be read counts as the engine's own.
fn is_elsewhere(process: &Path, own: &Path) -> bool {
    container(process).is_some_and(|other| other != own)
}

/// The entries whose names are numbers.
fn numbered(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    })
}

fn stat(process: &Path) -> Option<String> {
    let mut line = Vec::with_capacity(512);
    fs::File::open(process.join("stat")).ok()?.take(STAT_BYTES).read_to_end(&mut line).ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// What is used of a line of `stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    /// User and kernel time, own and of children that were waited for.
    ticks: u64,
    threads: u64,
}

impl Stat {
    /// See proc(5). The second field, the name, may contain anything, parentheses and spaces too.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let state = fields.first()?.bytes().next()?;
        let number = |at: usize| fields.get(at)?.trim().parse::<i64>().ok()?.try_into().ok();
        let ticks = (11..=14).map(number).try_fold(0_u64, |sum, ticks| sum.checked_add(ticks?))?;
        Some(Self { state, ticks, threads: number(17)? })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn line(name: &str, state: char, ticks: u64, threads: u32) -> String {
        format!("7 ({name}) {state} 1 7 7 0 -1 4194304 1 0 0 0 {ticks} 1 2 0 20 0 {threads} 0 55 0 0\n")
    }

    fn process(proc: &Path, pid: u32, namespace: &str, line: &str, threads: &[String]) {
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(namespace, folder.join("ns/mnt")).unwrap();
        fs::write(folder.join("stat"), line).unwrap();
        for (at, line) in threads.iter().enumerate() {
            fs::create_dir_all(folder.join(format!("task/{at}"))).unwrap();
            fs::write(folder.join(format!("task/{at}/stat")), line).unwrap();
        }
    }

    #[test]
    fn a_name_may_look_like_the_fields_after_it() {
        let expected = Stat { state: b'D', ticks: 13, threads: 4 };
        for name in ["engine", "x) R 1", ") (", "a b"] {
            assert_eq!(Stat::parse(&line(name, 'D', 10, 4)), Some(expected.clone()), "{name}");
        }
        assert_eq!(Stat::parse("7 (engine) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_engines_threads_count_and_those_of_others_do_not() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("self/ns")).unwrap();
        symlink("mnt:[7]", proc.path().join("self/ns/mnt")).unwrap();
        let states = ['R', 'S', 'D', 'D'].map(|state| line("worker", state, 1, 4));
        process(proc.path(), 1, "mnt:[7]", &line("engine", 'S', 97, 4), &states);
        process(proc.path(), 20, "mnt:[7]", &line("gone", 'Z', 0, 1), &[]);
        process(proc.path(), 21, "mnt:[8]", &line("guard", 'R', 900, 1), &[]);
        process(proc.path(), std::process::id(), "mnt:[7]", &line("livez", 'R', 900, 1), &[]);
        fs::create_dir_all(proc.path().join("sys")).unwrap();
        let expected = Threads {
            running: 1,
            sleeping: 1,
            blocked: 2,
            zombie: 1,
            cpu_usec: 1_030_000,
            ..Threads::default()
        };
        assert_eq!(count(proc.path(), Duration::from_secs(60)), expected);
        assert!(count(proc.path(), Duration::ZERO).partial);
        assert_eq!(count(Path::new("/nonexistent"), Duration::from_secs(1)), Threads::default());
    }
}
