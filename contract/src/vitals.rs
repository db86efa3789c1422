//! The file in which the liveness helper tells how busy its container is.
//!
//! Written beside the [instance](crate::restart_request::INSTANCE) by each probe, a key and a value on each line:
//!
//! ```text
//! instance 4026532345-af63dc4c8601ec8c
//! unix_ms 1767225600000
//! process_cpu_usec 4210000
//! threads_running 1
//! memory_bytes 2147483648
//! ```
//!
//! What the helper cannot read has no line. Readers pass over keys that they do not know.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The file's name in the folder of the [restart request](crate::restart_request).
pub const VITALS: &str = "vitals";
/// What is read of the file, bytes.
pub const MAX_BYTES: u64 = 4096;

/// One container, as its helper saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Key of the container's present life.
    pub instance: String,
    /// When it was measured: Unix time, milliseconds.
    pub unix_ms: u64,
    /// CPU time of the engine's processes in user and kernel mode, with that of children they waited for; microseconds.
    pub process_cpu_usec: u64,
    /// Threads of the engine's processes.
    pub threads: ThreadCounts,
    /// Whether there were more threads than the helper counts.
    pub partial: bool,
    /// CPU time of the whole container, microseconds: `usage_usec` of `cpu.stat`.
    pub cpu_usec: Option<u64>,
    /// Time for which the CPU limit held the container back, microseconds: `throttled_usec` of `cpu.stat`.
    pub throttled_usec: Option<u64>,
    /// Periods in which it did: `nr_throttled` of `cpu.stat`.
    pub throttled_periods: Option<u64>,
    /// Memory charged to the container, bytes: `memory.current`.
    pub memory_bytes: Option<u64>,
    /// The container's memory limit, bytes: `memory.max`; none without a limit.
    pub memory_max_bytes: Option<u64>,
    /// `cpu.pressure`, line `some`: at least one thread waited for a CPU.
    pub pressure_some: Option<Pressure>,
    /// `cpu.pressure`, line `full`: all threads that could run waited for a CPU.
    pub pressure_full: Option<Pressure>,
}

/// Threads by the state that the kernel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadCounts {
    /// `R`: on a CPU, or waiting for one.
    pub running: u32,
    /// `S`: waiting, and to be woken by signals.
    pub sleeping: u32,
    /// `D`: waiting inside the kernel, where no signal reaches it.
    pub blocked: u32,
    /// `Z`: ended, and not waited for.
    pub zombie: u32,
    /// Any other state.
    pub other: u32,
}

impl ThreadCounts {
    /// All threads but those that have ended.
    #[must_use]
    pub fn alive(&self) -> u32 {
        [self.running, self.sleeping, self.blocked, self.other].into_iter().fold(0, u32::saturating_add)
    }

    /// Counts a thread in the state of that letter.
    pub fn count(&mut self, state: char) {
        let counter = match state {
            'R' => &mut self.running,
            'S' | 'I' => &mut self.sleeping,
            'D' => &mut self.blocked,
            'Z' | 'X' => &mut self.zombie,
            _ => &mut self.other,
        };
        *counter = counter.saturating_add(1);
    }
}

/// Pressure stall information of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Share of the last 10 seconds, percent.
    pub avg10: f64,
    /// Stalled so far, microseconds.
    pub total_usec: u64,
}

impl Vitals {
    /// Reads the file's text. `None` when it names no instance or no time; a value that cannot be read is as none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut vitals = Self::default();
        for line in text.lines() {
            if let Some((key, value)) = line.split_once(' ') {
                // A key of a newer version, or a value that is none: the rest is still good.
                let _ = vitals.set(key, value.trim());
            }
        }
        (!vitals.instance.is_empty() && vitals.unix_ms > 0).then_some(vitals)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let number = || value.parse::<u64>().ok();
        let count = || value.parse::<u32>().ok();
        match key {
            "instance" => value.clone_into(&mut self.instance),
            "unix_ms" => self.unix_ms = number()?,
            "process_cpu_usec" => self.process_cpu_usec = number()?,
            "threads_running" => self.threads.running = count()?,
            "threads_sleeping" => self.threads.sleeping = count()?,
            "threads_blocked" => self.threads.blocked = count()?,
            "threads_zombie" => self.threads.zombie = count()?,
            "threads_other" => self.threads.other = count()?,
            "partial" => self.partial = value == "1",
            "cpu_usec" => self.cpu_usec = number(),
            "throttled_usec" => self.throttled_usec = number(),
            "throttled_periods" => self.throttled_periods = number(),
            "memory_bytes" => self.memory_bytes = number(),
            "memory_max_bytes" => self.memory_max_bytes = number(),
            "pressure_some" => self.pressure_some = Pressure::parse(value),
            "pressure_full" => self.pressure_full = Pressure::parse(value),
            _ => return None,
        }
        Some(())
    }
}

impl Pressure {
    /// Reads `AVG10 TOTAL`.
    fn parse(value: &str) -> Option<Self> {
        let (avg10, total) = value.split_once(' ')?;
        let avg10: f64 = avg10.parse().ok()?;
        (avg10.is_finite() && avg10 >= 0.0).then_some(Self { avg10, total_usec: total.parse().ok()? })
    }
}

/// The file's text.
impl fmt::Display for Vitals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = &self.threads;
        writeln!(formatter, "instance {}", self.instance)?;
        writeln!(formatter, "unix_ms {}", self.unix_ms)?;
        writeln!(formatter, "process_cpu_usec {}", self.process_cpu_usec)?;
        writeln!(formatter, "threads_running {}", threads.running)?;
        writeln!(formatter, "threads_sleeping {}", threads.sleeping)?;
        writeln!(formatter, "threads_blocked {}", threads.blocked)?;
        writeln!(formatter, "threads_zombie {}", threads.zombie)?;
        writeln!(formatter, "threads_other {}", threads.other)?;
        if self.partial {
            writeln!(formatter, "partial 1")?;
        }
        let numbers = [
            ("cpu_usec", self.cpu_usec),
            ("throttled_usec", self.throttled_usec),
            ("throttled_periods", self.throttled_periods),
            ("memory_bytes", self.memory_bytes),
            ("memory_max_bytes", self.memory_max_bytes),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                writeln!(formatter, "{key} {value}")?;
            }
        }
        for (key, pressure) in [("pressure_some", self.pressure_some), ("pressure_full", self.pressure_full)]
        {
            if let Some(Pressure { avg10, total_usec }) = pressure {
                writeln!(formatter, "{key} {avg10:.2} {total_usec}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vitals {
        Vitals {
            instance: "7-ab".into(),
            unix_ms: 1_767_225_600_000,
            process_cpu_usec: 4_210_000,
            threads: ThreadCounts { running: 1, sleeping: 20, blocked: 2, zombie: 3, other: 4 },
            partial: true,
            cpu_usec: Some(5_000_000),
            throttled_usec: Some(30_000),
            throttled_periods: Some(3),
            memory_bytes: Some(1 << 31),
            memory_max_bytes: Some(1 << 34),
            pressure_some: Some(Pressure { avg10: 12.25, total_usec: 400 }),
            pressure_full: Some(Pressure { avg10: 0.0, total_usec: 30 }),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let bare = Vitals { instance: "7-ab".into(), unix_ms: 1, ..Vitals::default() };
        for vitals in [whole(), bare] {
            assert_eq!(Vitals::parse(&vitals.to_string()), Some(vitals));
        }
        assert!((whole().to_string().len() as u64) < MAX_BYTES / 4);
    }

    #[test]
    fn unknown_keys_and_odd_values_are_passed_over() {
        let text = format!("newer thing\nlonely\n\n{}memory_bytes max\npressure_some x y\n", whole());
        let expected = Vitals { memory_bytes: None, pressure_some: None, ..whole() };
        assert_eq!(Vitals::parse(&text), Some(expected));
        assert_eq!(Pressure::parse("NaN 1"), None);
        assert_eq!(Pressure::parse("-1.00 1"), None);
    }

    #[test]
    fn a_text_without_instance_or_time_tells_nothing() {
        for text in
            ["", "instance 7-ab", "unix_ms 5", "instance \nunix_ms 5", "instance 7-ab\nunix_ms soon", "\0"]
        {
            assert_eq!(Vitals::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn threads_are_counted_by_state() {
        let mut threads = ThreadCounts::default();
        "RSSIDZXTt".chars().for_each(|state| threads.count(state));
        assert_eq!(threads, ThreadCounts { running: 1, sleeping: 3, blocked: 1, zombie: 2, other: 2 });
        assert_eq!(threads.alive(), 7);
    }
}
