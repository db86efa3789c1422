//! How busy this container is, for the guard: read at each probe, written beside the instance.
//!
//! The form is that of `contract::vitals`. What cannot be read has no line.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod cgroup;
mod threads;

pub use cgroup::Cgroup;
pub use threads::Threads;

/// What the probe may spend on counting threads; a container with a CPU limit may get little.
const BUDGET: Duration = Duration::from_millis(20);

/// Measures this container.
pub fn measure(key: &str) -> String {
    let threads = threads::count(Path::new("/proc"), BUDGET);
    let cgroup = cgroup::read(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
    text(key, SystemTime::now(), &threads, &cgroup)
}

/// A key and a value on each line.
fn text(key: &str, now: SystemTime, threads: &Threads, cgroup: &Cgroup) -> String {
    let unix_ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut text = format!("instance {key}\nunix_ms {unix_ms}\nprocess_cpu_usec {}\n", threads.cpu_usec);
    let counts = [
        ("running", threads.running),
        ("sleeping", threads.sleeping),
        ("blocked", threads.blocked),
        ("zombie", threads.zombie),
        ("other", threads.other),
    ];
    // Writing to a string cannot fail.
    for (state, count) in counts {
        let _ = writeln!(text, "threads_{state} {count}");
    }
    if threads.partial {
        text.push_str("partial 1\n");
    }
    let numbers = [
        ("cpu_usec", cgroup.cpu_usec),
        ("throttled_usec", cgroup.throttled_usec),
        ("throttled_periods", cgroup.throttled_periods),
        ("memory_bytes", cgroup.memory_bytes),
        ("memory_max_bytes", cgroup.memory_max_bytes),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} {value}");
        }
    }
    for (key, pressure) in [("some", &cgroup.pressure_some), ("full", &cgroup.pressure_full)] {
        if let Some((avg10, total)) = pressure {
            let _ = writeln!(text, "pressure_{key} {avg10:.2} {total}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use contract::vitals::{MAX_BYTES, Pressure, ThreadCounts, Vitals};

    use super::*;

    #[test]
    fn the_guard_reads_what_is_written() {
        let threads = Threads {
            running: 1,
            sleeping: 2,
            blocked: 3,
            zombie: 4,
            other: 5,
            cpu_usec: 6_000_000,
            partial: true,
        };
        let cgroup = Cgroup {
            cpu_usec: Some(7),
            throttled_usec: Some(8),
            throttled_periods: Some(9),
            memory_bytes: Some(10),
            memory_max_bytes: Some(11),
            pressure_some: Some((12.25, 13)),
            pressure_full: Some((0.5, 14)),
        };
        let vitals = Vitals {
            instance: "7-ab".into(),
            unix_ms: 1500,
            process_cpu_usec: 6_000_000,
            threads: ThreadCounts { running: 1, sleeping: 2, blocked: 3, zombie: 4, other: 5 },
            partial: true,
            cpu_usec: Some(7),
            throttled_usec: Some(8),
            throttled_periods: Some(9),
            memory_bytes: Some(10),
            memory_max_bytes: Some(11),
            pressure_some: Some(Pressure { avg10: 12.25, total_usec: 13 }),
            pressure_full: Some(Pressure { avg10: 0.5, total_usec: 14 }),
        };
        let written = text("7-ab", UNIX_EPOCH + Duration::from_millis(1500), &threads, &cgroup);
        assert_eq!(written, vitals.to_string());
        assert_eq!(Vitals::parse(&written), Some(vitals));
        assert!((written.len() as u64) < MAX_BYTES);
        let bare =
            text("7-ab", UNIX_EPOCH + Duration::from_millis(1), &Threads::default(), &Cgroup::default());
        let nothing = Vitals { instance: "7-ab".into(), unix_ms: 1, ..Vitals::default() };
        assert_eq!(bare, nothing.to_string());
    }
}
