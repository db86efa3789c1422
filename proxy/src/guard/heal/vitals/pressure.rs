//! How much the node's processes wait for a CPU: time in which that is so says little about one engine.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the kernel shows it, for all processes of the node.
pub const NODE: &str = "/proc/pressure/cpu";
/// What is read of it.
const MAX_BYTES: u64 = 1024;

/// Pressure stall information of the node's CPUs, line `some`: a process that could run waited for a CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodePressure {
    /// When it was read.
    pub at: Instant,
    /// Share of the last 10 seconds, 0 to 1, as the kernel averages it.
    pub avg10: f64,
    /// Such time so far.
    pub total: Duration,
}

impl NodePressure {
    /// Reads it; `None` where the kernel has none.
    pub fn read(path: &Path, now: Instant) -> Option<Self> {
        let mut text = String::new();
        fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Self::parse(&text, now)
    }

    /// `some avg10=0.12 avg60=0.00 avg300=0.00 total=12345`, and a line for `full`.
    fn parse(text: &str, now: Instant) -> Option<Self> {
        let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
        let field = |name: &str| some.split(' ').find_map(|field| field.strip_prefix(name));
        let percent: f64 = field("avg10=")?.parse().ok()?;
        let total = Duration::from_micros(field("total=")?.parse().ok()?);
        percent.is_finite().then(|| Self { at: now, avg10: (percent / 100.0).clamp(0.0, 1.0), total })
    }

    /// Share of the time since `earlier` in which a process waited, 0 to 1. `None` when no time has passed.
    pub fn share_since(&self, earlier: &Self) -> Option<f64> {
        let passed = self.at.checked_duration_since(earlier.at).filter(|passed| !passed.is_zero())?;
        let waited = self.total.saturating_sub(earlier.total);
        Some((waited.as_secs_f64() / passed.as_secs_f64()).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, now: Instant) -> Option<NodePressure> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu"), text).unwrap();
        NodePressure::read(&dir.path().join("cpu"), now)
    }

    #[test]
    fn the_share_is_that_of_the_time_between_two_readings() {
        let now = Instant::now();
        let earlier = read("some avg10=25.00 avg60=1.00 avg300=0.00 total=1000000\n", now).unwrap();
        assert_eq!((earlier.avg10, earlier.total), (0.25, Duration::from_secs(1)));
        let full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let text = format!("some avg10=30.00 avg60=1.00 avg300=0.00 total=1500000\n{full}");
        let later = read(&text, now + Duration::from_secs(2)).unwrap();
        assert_eq!(later.share_since(&earlier), Some(0.25));
        assert_eq!(earlier.share_since(&earlier), None);
        assert_eq!(earlier.share_since(&later), None);
    }

    #[test]
    fn a_kernel_without_it_shows_none() {
        assert_eq!(NodePressure::read(Path::new("/nonexistent"), Instant::now()), None);
        for text in
            ["", "some", "some avg10=NaN total=1\n", "some avg10=0.10 total=\n", "full avg10=0.00 total=1"]
        {
            assert_eq!(read(text, Instant::now()), None, "{text:?}");
        }
    }
}
