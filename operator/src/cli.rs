//! What people ask of stacks from a terminal; `kubectl speechstack` where the binary is named `kubectl-speechstack`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use speechstack_crds::SpeechStack;

mod bundle;
mod probe;
mod redact;
mod render;
mod tree;

/// Field manager of what people change here.
const MANAGER: &str = "kubectl-speechstack";
/// Annotation by which used-up budgets are forgotten.
const RESET: &str = "speechstack.dev/reset-repair";

/// What people ask.
#[derive(Clone, Debug, Subcommand)]
pub enum Ask {
    /// Print stacks as a tree: engines, pods, states, the last repair, and why something does not serve.
    Status {
        /// Only this stack.
        name: Option<String>,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Print the repairs of stacks, newest first.
    Incidents {
        /// Only this stack.
        name: Option<String>,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Forget used-up budgets of repair, and take back what keeps engines off nodes.
    Reset {
        /// The stack.
        name: String,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Stop all repair of a stack, or with --off let it go on.
    Hold {
        /// The stack.
        name: String,
        /// Let repair go on.
        #[arg(long)]
        off: bool,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Speak a sentence through a stack's gateway and transcribe it back.
    Probe {
        /// The stack.
        name: String,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Write an archive for support: the stack, its objects, Events, logs and the guards' reports, without secrets.
    Bundle {
        /// The stack.
        name: String,
        /// The archive; NAME-TIME.tar.gz when unset.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Print what the operator would apply for the stacks of a file; asks no cluster.
    Render {
        /// YAML with one or more SpeechStacks.
        file: PathBuf,
        /// A file of presets that is merged over those that come with the operator.
        #[arg(long, env = "SPEECHSTACK_PRESETS")]
        presets: Option<PathBuf>,
        /// Image of gateways and guards.
        #[arg(long, env = "SPEECHSTACK_PROXY_IMAGE", default_value = "speechstack/proxy")]
        proxy_image: String,
    },
}

/// A namespace, or all.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The namespace; the kubeconfig's when unset.
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// Why an answer cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the API server.
    #[error("no kubeconfig or cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The API server refused.
    #[error("unable to {what}: {source}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no such stack.
    #[error("there is no stack {0} here")]
    Unknown(String),
    /// The stack does not speak or hear as it should.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// The archive cannot be written.
    #[error("unable to write {path}: {source}")]
    Write {
        /// Its path.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Rendering failed.
    #[error(transparent)]
    Render(#[from] render::Error),
}

/// Answers, as text for people or YAML for tools.
///
/// # Errors
/// When the API server or the file cannot be read, or there is no such stack.
pub async fn answer(ask: Ask) -> Result<String, Error> {
    match ask {
        Ask::Status { name, place } => Ok(tree::status(&stacks(name, &place).await?, Timestamp::now())),
        Ask::Incidents { name, place } => Ok(tree::incidents(&stacks(name, &place).await?)),
        Ask::Reset { name, place } => {
            let now = jiff::Timestamp::now().to_string();
            change(&name, &place, json!({"metadata": {"annotations": {RESET: now}}})).await
        }
        Ask::Hold { name, off, place } => {
            change(&name, &place, json!({"spec": {"repair": {"hold": !off}}})).await
        }
        Ask::Probe { name, place } => {
            let (client, stack) = one(name, &place).await?;
            Ok(probe::run(&client, &stack).await?)
        }
        Ask::Bundle { name, output, place } => {
            let (client, stack) = one(name.clone(), &place).await?;
            let now = jiff::Timestamp::now();
            let folder = format!("{name}-{}", now.strftime("%Y%m%d-%H%M%S"));
            let path = output.unwrap_or_else(|| format!("{folder}.tar.gz").into());
            let files = bundle::gather(&client, &stack, now).await;
            let written = bundle::pack(&folder, &files, now).and_then(|packed| std::fs::write(&path, packed));
            let shown = path.display().to_string();
            written.map_err(|source| Error::Write { path: shown.clone(), source })?;
            Ok(format!("{} files in {shown}; look through them before you pass them on\n", files.len()))
        }
        Ask::Render { file, presets, proxy_image } => {
            Ok(render::render(&file, presets.as_deref(), &proxy_image)?)
        }
    }
}

async fn client() -> Result<Client, Error> {
    Client::try_default().await.map_err(|error| Error::Client(Box::new(error)))
}

/// The one stack of that name.
async fn one(name: String, place: &Place) -> Result<(Client, SpeechStack), Error> {
    let stack = stacks(Some(name.clone()), place).await?.into_iter().next();
    Ok((client().await?, stack.ok_or(Error::Unknown(name))?))
}

async fn api(place: &Place) -> Result<Api<SpeechStack>, Error> {
    let client = client().await?;
    Ok(match &place.namespace {
        _ if place.all_namespaces => Api::all(client),
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    })
}

async fn stacks(name: Option<String>, place: &Place) -> Result<Vec<SpeechStack>, Error> {
    let call = |source| Error::Call { what: "list stacks", source: Box::new(source) };
    let found = api(place).await?.list(&kube::api::ListParams::default()).await.map_err(call)?;
    let is_asked = |stack: &SpeechStack| name.as_ref().is_none_or(|name| stack.name_any() == *name);
    let stacks: Vec<_> = found.items.into_iter().filter(is_asked).collect();
    match (name, stacks.is_empty()) {
        (Some(name), true) => Err(Error::Unknown(name)),
        _ => Ok(stacks),
    }
}

async fn change(name: &str, place: &Place, patch: Value) -> Result<String, Error> {
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let call = |source| Error::Call { what: "change the stack", source: Box::new(source) };
    api(place).await?.patch(name, &parameters, &Patch::Merge(patch)).await.map_err(call)?;
    Ok(format!("speechstack {name} changed\n"))
}
