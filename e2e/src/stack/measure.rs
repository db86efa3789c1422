//! What a stack uses, by its metrics and by the kernel's account.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::stack::{Stack, TEST_TIMEOUT};

impl Stack {
    /// Process id of the proxy, gateway and guards in one.
    pub fn pid(&self) -> u32 {
        self.proxy.id()
    }

    /// Where an engine takes requests itself.
    ///
    /// # Errors
    /// When there is no engine of that name.
    pub fn engine_address(&self, name: &str) -> Result<SocketAddr> {
        Ok(self.engines[self.place(name)?].1)
    }

    /// Where the guard of an engine takes requests.
    ///
    /// # Errors
    /// As [`Stack::engine_address`].
    pub fn guard_address(&self, name: &str) -> Result<SocketAddr> {
        Ok(self.gates[self.place(name)?])
    }

    fn place(&self, name: &str) -> Result<usize> {
        let place = self.engines.iter().position(|(engine, _)| engine.name == name);
        place.with_context(|| format!("no engine {name}"))
    }

    /// The sum of a metric of an engine's guard over the series whose line has all of `parts`.
    ///
    /// # Errors
    /// When there is no such engine, or its guard does not answer.
    pub async fn measured(&self, engine: &str, metric: &str, parts: &[&str]) -> Result<f64> {
        let guard = self.guards[self.place(engine)?];
        let metrics =
            Client::new(format!("http://{guard}"), Duration::from_secs(5))?.get("/metrics").await?.text();
        let is_wanted = |line: &&str| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        };
        let values =
            metrics.lines().filter(is_wanted).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Waits until no job holds a permit of any lane, and none waits for one.
    ///
    /// # Errors
    /// When some still do after a while: permits are lost.
    pub async fn idle(&self) -> Result<()> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let mut held = Vec::new();
            for (engine, _) in &self.engines {
                for metric in ["speechstack_guard_lane_running", "speechstack_guard_lane_waiting"] {
                    let jobs = self.measured(&engine.name, metric, &[]).await?;
                    if jobs > 0.0 {
                        held.push(format!("{metric} of {} is {jobs}", engine.name));
                    }
                }
            }
            if held.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "permits are lost: {held:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Resident memory of the proxy, KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}
