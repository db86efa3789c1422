//! What the kernel accounts to this container: files of cgroup v2. With cgroup v1 alone there is nothing to read.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What is read of one file.
const MOST_BYTES: u64 = 4096;

/// The container's account; `None` for what has no file or no value.
#[derive(Debug, Default, PartialEq)]
pub struct Cgroup {
    /// CPU time, microseconds.
    pub cpu_usec: Option<u64>,
    /// Time for which the CPU limit held it back, microseconds.
    pub throttled_usec: Option<u64>,
    /// Periods in which it did.
    pub throttled_periods: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Limit of memory, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Share of the last 10 seconds in which a thread waited for a CPU, percent, and that time so far, microseconds.
    pub pressure_some: Option<(f64, u64)>,
    /// The same for all threads at once.
    pub pressure_full: Option<(f64, u64)>,
}

/// Reads the group that `own` (`/proc/self/cgroup`) names under `root`.
pub fn read(root: &Path, own: &Path) -> Cgroup {
    let group = group(root, &file(own).unwrap_or_default());
    let stat = file(&group.join("cpu.stat")).unwrap_or_default();
    let pressure = file(&group.join("cpu.pressure")).unwrap_or_default();
    Cgroup {
        cpu_usec: value(&stat, "usage_usec"),
        throttled_usec: value(&stat, "throttled_usec"),
        throttled_periods: value(&stat, "nr_throttled"),
        memory_bytes: number(&group.join("memory.current")),
        memory_max_bytes: number(&group.join("memory.max")),
        pressure_some: stalled(&pressure, "some "),
        pressure_full: stalled(&pressure, "full "),
    }
}

/// With a cgroup namespace, as containers have it, the root is the container's own group; else the path leads there.
fn group(root: &Path, own: &str) -> PathBuf {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let named = root.join(path);
    if !path.contains("..") && named.join("cpu.stat").exists() { named } else { root.to_owned() }
}

fn file(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(path: &Path) -> Option<u64> {
    file(path)?.trim().parse().ok()
}

fn value(stat: &str, key: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=12345`
fn stalled(pressure: &str, line: &str) -> Option<(f64, u64)> {
    let rest = pressure.lines().find_map(|candidate| candidate.strip_prefix(line))?;
    let field = |name: &str| rest.split(' ').find_map(|field| field.strip_prefix(name));
    let avg10: f64 = field("avg10=")?.parse().ok()?;
    Some((avg10, field("total=")?.parse().ok()?)).filter(|_| avg10.is_finite() && avg10 >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_container_with_limits_has_every_value() {
        let root = group_with(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nnr_periods 9\nnr_throttled 2\nthrottled_usec 700\n"),
            ("memory.current", "1024\n"),
            ("memory.max", "4096\n"),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.10 avg300=0.00 total=90\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=8\n",
            ),
            ("self", "0::/\n"),
        ]);
        let expected = Cgroup {
            cpu_usec: Some(5),
            throttled_usec: Some(700),
            throttled_periods: Some(2),
            memory_bytes: Some(1024),
            memory_max_bytes: Some(4096),
            pressure_some: Some((1.5, 90)),
            pressure_full: Some((0.25, 8)),
        };
        assert_eq!(read(root.path(), &root.path().join("self")), expected);
    }

    #[test]
    fn what_is_absent_or_odd_has_no_value() {
        let root = group_with(&[
            ("cpu.stat", "usage_usec 5\nthrottled_usec_x 3\n"),
            ("memory.max", "max\n"),
            ("cpu.pressure", "some avg10=x total=1\nfull avg10=0.10 total=\n"),
        ]);
        let expected = Cgroup { cpu_usec: Some(5), ..Cgroup::default() };
        assert_eq!(read(root.path(), &root.path().join("absent")), expected);
        assert_eq!(read(Path::new("/nonexistent"), Path::new("/nonexistent")), Cgroup::default());
    }

    #[test]
    fn without_a_namespace_the_path_leads_to_the_group() {
        let root = group_with(&[
            ("cpu.stat", "usage_usec 1\n"),
            ("pods/a/cpu.stat", "usage_usec 2\n"),
            ("named", "12:cpu:/x\n0::/pods/a\n"),
            ("outside", "0::/../pods/a\n"),
            ("gone", "0::/pods/b\n"),
        ]);
        let usage = |own: &str| read(root.path(), &root.path().join(own)).cpu_usec;
        assert_eq!((usage("named"), usage("outside"), usage("gone")), (Some(2), Some(1), Some(1)));
    }
}
