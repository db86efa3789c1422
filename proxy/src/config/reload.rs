//! Takes over a changed configuration file while the process runs; an invalid one changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::{MissedTickBehavior, interval};
use twox_hash::XxHash3_64;

use crate::config::{self, Config};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// What is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    reloads: IntCounterVec,
}

impl Metrics {
    /// Makes and registers it.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Configuration files that changed, by whether they were applied";
        let reloads = IntCounterVec::new(Opts::new("speechstack_config_reloads_total", help), &["result"])?;
        registry.register(Box::new(reloads.clone()))?;
        for result in ["applied", "invalid"] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self { reloads })
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub struct File {
    /// The configuration file, YAML.
    #[arg(long, env = "SPEECHSTACK_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Replaces one value of the file, as in `gateway.listen=0.0.0.0:8080` or `engines[0].env.A=b`.
    #[arg(long = "set", env = "SPEECHSTACK_SET", value_name = "FIELD=VALUE", value_delimiter = ',')]
    pub overrides: Vec<String>,
}

/// A configuration file, and what it held when it was read last.
#[derive(Debug)]
pub struct Watch {
    file: File,
    hash: Option<u64>,
}

/// What a look at the file found.
#[derive(Debug)]
enum Found {
    Unchanged,
    Changed(Box<Config>),
    Invalid(config::Error),
}

impl Watch {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read, or is invalid.
    pub fn read(file: File) -> Result<(Self, Config), config::Error> {
        let text = std::fs::read_to_string(&file.config)
            .map_err(|source| config::Error::Read { path: file.config.clone(), source })?;
        let config = config::from_text(&file.config, &text, &file.overrides)?;
        Ok((Self { file, hash: Some(XxHash3_64::oneshot(text.as_bytes())) }, config))
    }

    /// Looks at the file for ever, and gives every valid new configuration to `apply`.
    pub async fn follow(mut self, metrics: Metrics, mut apply: impl FnMut(Config)) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Absent for a moment is how some mounts change a file.
            let Ok(text) = tokio::fs::read_to_string(&self.file.config).await else { continue };
            match self.look(&text) {
                Found::Unchanged => {}
                Found::Changed(config) => {
                    apply(*config);
                    metrics.reloads.with_label_values(&["applied"]).inc();
                    tracing::info!(file = %self.file.config.display(), "configuration reloaded");
                }
                Found::Invalid(error) => {
                    metrics.reloads.with_label_values(&["invalid"]).inc();
                    tracing::error!(%error, "unable to take over the configuration; the old one stays in force");
                }
            }
        }
    }

    fn look(&mut self, text: &str) -> Found {
        let hash = Some(XxHash3_64::oneshot(text.as_bytes()));
        if std::mem::replace(&mut self.hash, hash) == hash {
            return Found::Unchanged;
        }
        match config::from_text(&self.file.config, text, &self.file.overrides) {
            Ok(config) => Found::Changed(Box::new(config)),
            Err(error) => Found::Invalid(error),
        }
    }
}

/// What differs and counts only from the next start on.
pub fn needs_restart(before: &Config, now: &Config) -> Vec<&'static str> {
    let (old, new) = (&before.gateway, &now.gateway);
    let discovery = old.discovery.is_some() != new.discovery.is_some();
    [
        ("gateway.listen", old.listen != new.listen),
        ("gateway.admin", old.admin != new.admin),
        ("gateway.grpc.listen", old.grpc.listen != new.grpc.listen),
        ("gateway.tls", old.tls != new.tls),
        ("gateway.spool", old.spool != new.spool),
        ("gateway.discovery", discovery),
        ("gateway.quotas.redis", old.quotas.redis != new.quotas.redis),
        ("gateway.clips", old.clips != new.clips),
        ("gateway.jobs.dir", old.jobs.dir != new.jobs.dir),
        ("gateway.jobs.redis", old.jobs.redis != new.jobs.redis),
        ("gateway.jobs.webhooks.secret_file", old.jobs.webhooks.secret_file != new.jobs.webhooks.secret_file),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_and_valid_text_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "gateway: {max_in_flight: 7}").unwrap();
        let file = File { config: path, overrides: vec!["gateway.drain=9s".into()] };
        let (mut watch, config) = Watch::read(file).unwrap();
        assert_eq!(config.gateway.max_in_flight, 7);
        assert!(matches!(watch.look("gateway: {max_in_flight: 7}"), Found::Unchanged));
        assert!(matches!(watch.look("gateway: {max_in_flight: many}"), Found::Invalid(_)));
        assert!(matches!(watch.look("gateway: {max_in_flight: many}"), Found::Unchanged), "told once");
        let Found::Changed(config) = watch.look("gateway: {max_in_flight: 8}") else { panic!() };
        assert_eq!(config.gateway.max_in_flight, 8);
        assert_eq!(config.gateway.drain, Duration::from_secs(9), "overrides stay");
        assert!(matches!(watch.look("gateway: {max_in_flight: 7}"), Found::Changed(_)), "back again");
    }

    #[test]
    fn what_counts_from_the_next_start_on_is_named() {
        let (before, mut now) = (Config::default(), Config::default());
        assert!(needs_restart(&before, &now).is_empty());
        now.gateway.max_in_flight = 1;
        now.gateway.listen.set_port(1);
        now.gateway.spool.disk = bytesize::ByteSize(1);
        assert_eq!(needs_restart(&before, &now), ["gateway.listen", "gateway.spool"]);
    }
}
