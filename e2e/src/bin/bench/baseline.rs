//! The committed figures that later ones are compared with, one pair for each build profile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What the gateway may spend more than the baseline says. It repeats to 0.01 %.
const GATEWAY: f64 = 1.03;
/// The guard's health loop works by the clock, beside the requests: its figures repeat to 6 %.
const GUARD: f64 = 1.15;

/// What one 32 KB transcription costs, the log on.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
pub struct Figures {
    /// The gateway without a guard.
    pub gateway: Cost,
    /// The guard behind a gateway.
    pub guard: Cost,
}

/// What one process spends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
pub struct Cost {
    /// Instructions in user space.
    pub instructions: f64,
    /// Blocks of memory asked for.
    pub allocations: f64,
}

/// Compares with the baseline of that profile.
///
/// # Errors
/// When something has grown beyond its tolerance, with what to do.
pub fn compare(file: &Path, profile: &str, now: Figures) -> Result<()> {
    let baseline = read(file)?;
    let Some(before) = baseline.get(profile) else {
        bail!("{} has no figures of profile {profile}", file.display());
    };
    let mut grown = Vec::new();
    for (what, now, before, tolerance) in [
        ("instructions of the gateway", now.gateway.instructions, before.gateway.instructions, GATEWAY),
        ("allocations of the gateway", now.gateway.allocations, before.gateway.allocations, GATEWAY),
        ("instructions of the guard", now.guard.instructions, before.guard.instructions, GUARD),
        ("allocations of the guard", now.guard.allocations, before.guard.allocations, GUARD),
    ] {
        println!("{what} per 32 KB transcription, {profile} build: {now}, baseline {before}");
        if now > before * tolerance {
            grown.push(format!("{what} grew by {:.1} %", (now / before - 1.0) * 100.0));
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    bail!("{}; if it is worth it, `make bench-baseline` writes the new figures", grown.join(", "))
}

/// Writes the figures of that profile and keeps those of others.
pub fn write(file: &Path, profile: &str, now: Figures) -> Result<()> {
    let mut baseline = if file.exists() { read(file)? } else { BTreeMap::new() };
    baseline.insert(profile.to_owned(), now);
    let text = serde_json::to_string_pretty(&baseline)?;
    fs::write(file, text + "\n").with_context(|| format!("unable to write {}", file.display()))
}

fn read(file: &Path) -> Result<BTreeMap<String, Figures>> {
    let text = fs::read_to_string(file).with_context(|| format!("unable to read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("unable to read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_tolerance_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("baseline.json");
        let figures = |instructions, allocations| {
            let cost = Cost { instructions, allocations };
            Figures { gateway: cost, guard: cost }
        };
        write(&file, "debug", figures(1000.0, 100.0)).unwrap();
        write(&file, "release", figures(1.0, 1.0)).unwrap();
        assert!(compare(&file, "debug", figures(1029.0, 90.0)).is_ok());
        let grown = compare(&file, "debug", figures(1031.0, 104.0)).unwrap_err().to_string();
        assert_eq!(
            grown.split(';').next(),
            Some("instructions of the gateway grew by 3.1 %, allocations of the gateway grew by 4.0 %")
        );
        let grown = compare(&file, "debug", figures(1151.0, 100.0)).unwrap_err().to_string();
        assert!(grown.contains("instructions of the guard grew by 15.1 %"), "{grown}");
        assert!(compare(&file, "bench", figures(1.0, 1.0)).is_err());
    }
}
