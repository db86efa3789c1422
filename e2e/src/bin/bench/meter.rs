//! Reads what processes cost from `/proc`, and condenses samples.

use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds of CPU that all threads of a process have used, user and kernel.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is read.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Resident memory in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// Peak of resident memory in KiB since [`reset_peak`].
pub fn peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

/// Starts a new peak.
pub fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("unable to reset the memory peak")
}

fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.split_whitespace().next()).and_then(|value| value.parse().ok());
    value.with_context(|| format!("process {pid} has no {field}"))
}

/// The value below which a share of the samples lies; 0 without samples.
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}

/// The middle value.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

/// The middle of the quotients of paired samples, so that drift of the machine cancels out.
pub fn median_ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&ratios(of, to))
}

/// How far the quotients of paired samples are apart: half of the range that the middle half of them has, over their median.
pub fn spread(of: &[f64], to: &[f64]) -> f64 {
    let ratios = ratios(of, to);
    let range = percentile(&ratios, 0.75) - percentile(&ratios, 0.25);
    range / 2.0 / median(&ratios).max(f64::MIN_POSITIVE)
}

fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(cpu_ns(pid).unwrap() > 0);
        assert!(resident_kib(pid).unwrap() > 100);
    }

    #[test]
    fn percentiles_are_samples() {
        let samples = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!((median(&samples), percentile(&samples, 0.99), percentile(&[], 0.5)), (3.0, 5.0, 0.0));
        assert_eq!(median_ratio(&[2.0, 9.0, 4.0], &[1.0, 3.0, 2.0]), 2.0);
        assert_eq!(spread(&[2.0, 9.0, 4.0], &[1.0, 3.0, 2.0]), 0.25);
        assert_eq!(spread(&[2.0, 4.0], &[1.0, 2.0]), 0.0);
    }
}
