//! The command line: every flag has an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::Ask;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Turns a SpeechStack into speech engines that heal themselves, behind one OpenAI-compatible URL.
#[derive(Clone, Debug, Parser)]
#[command(name = "speechstack-operator", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<Run>),
    /// Print the custom resource definitions as YAML.
    Crd,
    /// What people ask of stacks; also `kubectl speechstack` where the binary is named `kubectl-speechstack`.
    #[command(flatten)]
    Ask(Ask),
    /// Print the presets.
    Presets {
        /// A file that is merged over those that come with the operator.
        #[arg(long, env = "SPEECHSTACK_PRESETS")]
        file: Option<PathBuf>,
    },
}

/// Settings of a running operator.
#[derive(Clone, Debug, ClapArgs)]
pub struct Run {
    /// The only namespace to watch; all when unset.
    #[arg(long, env = "SPEECHSTACK_WATCH_NAMESPACE", value_parser = named)]
    pub watch_namespace: Option<String>,
    /// Whether nodes may be read, for the check of their GPUs before pods start.
    #[arg(long, env = "SPEECHSTACK_WATCH_NODES", default_value_t = true, action = clap::ArgAction::Set)]
    pub watch_nodes: bool,
    /// Whether the Secrets that stacks name may be read, to say early what is missing.
    #[arg(long, env = "SPEECHSTACK_CHECK_SECRETS", default_value_t = true, action = clap::ArgAction::Set)]
    pub check_secrets: bool,
    /// Whether the logs of engines that ended may be read, to say why; needs the role for it.
    #[arg(long, env = "SPEECHSTACK_READ_LOGS", default_value_t = false, action = clap::ArgAction::Set)]
    pub read_logs: bool,
    /// Image of gateways and guards.
    #[arg(long, env = "SPEECHSTACK_PROXY_IMAGE")]
    pub proxy_image: String,
    /// Image of the reference engine, in place of the preset's.
    #[arg(long, env = "SPEECHSTACK_ENGINE_IMAGE", value_parser = named)]
    pub engine_image: Option<String>,
    /// A file of presets that is merged over those that come with the operator.
    #[arg(long, env = "SPEECHSTACK_PRESETS")]
    pub presets: Option<PathBuf>,
    /// Registry in place of the first part of every preset's image, for stacks that name none.
    #[arg(long, env = "SPEECHSTACK_IMAGE_REGISTRY", value_parser = named)]
    pub image_registry: Option<String>,
    /// Secrets for pulling images, for stacks that name none; each must be in the stack's namespace.
    #[arg(long, env = "SPEECHSTACK_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Whether pods run as a fixed user; false where the cluster gives each namespace its own, as OpenShift does.
    #[arg(long, env = "SPEECHSTACK_FIXED_USER", default_value_t = true, action = clap::ArgAction::Set)]
    pub fixed_user: bool,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "SPEECHSTACK_ADMIN", default_value = "[::]:8080")]
    pub admin: SocketAddr,
    /// Lease by which one replica leads.
    #[arg(long, env = "SPEECHSTACK_LEASE_NAME", default_value = "speechstack-operator")]
    pub lease_name: String,
    /// Its namespace; the operator's own when unset.
    #[arg(long, env = "SPEECHSTACK_LEASE_NAMESPACE", value_parser = named)]
    pub lease_namespace: Option<String>,
    /// Repairs of pods of all stacks within ten minutes.
    #[arg(long, env = "SPEECHSTACK_REPAIRS_PER_CLUSTER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub repairs_per_cluster: u16,
    /// Engines of all stacks that take a new template at the same time that no user asked for (`updates: Automatic`).
    #[arg(long, env = "SPEECHSTACK_UPDATES_PER_CLUSTER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub updates_per_cluster: u16,
    /// Whether nodes may be labelled and tainted; needs the role for it.
    #[arg(long, env = "SPEECHSTACK_NODE_ESCALATION", default_value_t = false, action = clap::ArgAction::Set)]
    pub node_escalation: bool,
    /// The operator's service account, whose orders guards obey.
    #[arg(long, env = "SPEECHSTACK_SERVICE_ACCOUNT", default_value = "speechstack-operator")]
    pub service_account: String,
    /// Reconciles at the same time.
    #[arg(long, env = "SPEECHSTACK_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Collector of the spans of repairs, as in `http://collector:4318`; none are exported when unset.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = named)]
    pub otlp_endpoint: Option<String>,
    /// A file with headers for it, one `NAME: VALUE` a line; it is read for each export.
    #[arg(long, env = "SPEECHSTACK_OTLP_HEADERS_FILE")]
    pub otlp_headers_file: Option<PathBuf>,
    /// This pod's name, by which it holds the lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// This pod's namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Which log lines are written, as in `info,speechstack_operator=debug`.
    #[arg(long, env = "SPEECHSTACK_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "SPEECHSTACK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An empty value is a mistake, but for optional settings it is what charts render for "unset".
fn named(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().to_owned())
}

impl Run {
    /// With empty texts read as unset.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let Self { watch_namespace, engine_image, lease_namespace, image_registry, otlp_endpoint, .. } =
            &mut self;
        for optional in [watch_namespace, engine_image, lease_namespace, image_registry, otlp_endpoint] {
            *optional = optional.take().filter(|text| !text.is_empty());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_watch_namespace_means_all() {
        let line = "operator run --proxy-image p --pod-name a --pod-namespace b --watch-namespace=";
        let Command::Run(run) = Args::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        let run = run.normalised();
        assert_eq!((run.watch_namespace, run.lease_name.as_str()), (None, "speechstack-operator"));
        assert!(!run.node_escalation && run.watch_nodes);
    }

    #[test]
    fn the_proxy_image_must_be_given() {
        assert!(Args::try_parse_from(["operator", "run"]).is_err());
        assert!(matches!(Args::try_parse_from(["operator", "crd"]).unwrap().command, Command::Crd));
    }
}
