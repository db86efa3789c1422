//! Presets: what is known of each engine container, as data. One embedded file, over which an administrator's is merged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::{Map, Value};
use speechstack_crds::{Capability, Protocol, Span};

/// The presets that come with the operator.
const SHIPPED: &str = include_str!("../presets.yaml");
/// Longest chain of `extends`.
const DEPTH: usize = 8;

/// What is known of an engine's container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preset {
    /// What it does.
    #[serde(rename = "for")]
    pub capability: Capability,
    /// In one line.
    pub summary: String,
    /// What a person should know before the first use.
    pub caution: Option<String>,
    /// How it is configured.
    pub server: Server,
    /// Whether it is a server that runs elsewhere.
    #[serde(default)]
    pub external: bool,
    /// Its image; unset where the user gives it.
    pub image: Option<PresetImage>,
    /// `NIM_TAGS_SELECTOR`.
    pub selector: Option<String>,
    /// How it is spoken to, in order of preference.
    pub protocols: Vec<Protocol>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments, before those of the user.
    #[serde(default)]
    pub args: Vec<String>,
    /// Whether it gets the NGC key; a NIM always does.
    #[serde(default)]
    pub key: bool,
    /// Its HTTP port.
    #[serde(default = "http_port")]
    pub http: i32,
    /// Its gRPC port.
    #[serde(default = "grpc_port")]
    pub grpc: i32,
    /// User and group that the image runs as; 1000 when unset.
    pub user: Option<i64>,
    /// Whether it runs on a GPU.
    pub gpu: bool,
    /// Least memory of the GPU; 0 asks for nothing.
    pub gpu_memory: Quantity,
    /// Size limit of `/dev/shm`.
    pub shm: Quantity,
    /// Where it keeps models; unset when it keeps none.
    pub cache: Option<PresetCache>,
    /// CPU and memory requests.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
    /// Longest expected first start: download of the models and build of the engine.
    pub startup: Span,
    /// Architectures of its image, as in the label `kubernetes.io/arch`; any when empty.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// GPU jobs at a time.
    pub jobs: u32,
    /// Conversations at a time; the guard's default when unset.
    pub streams: Option<u32>,
    /// First guess of what a job costs.
    pub cost: Cost,
    /// What it is probed with.
    #[serde(default)]
    pub probe: PresetProbe,
    /// Model names that clients may use.
    pub model: PresetModel,
}

/// How an engine's container is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// NVIDIA's NIM: ports, cache, profile and key by environment.
    Nim,
    /// The CPU reference engine: addresses by arguments.
    Reference,
    /// Neither.
    Plain,
}

/// The image of a preset.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetImage {
    /// Repository with its registry.
    pub repository: String,
    /// Tag.
    pub tag: Option<String>,
    /// Digest, `sha256:…`, in place of the tag.
    pub digest: Option<String>,
}

/// Where an engine keeps models.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetCache {
    /// The container's path.
    pub path: String,
    /// Size of a new claim.
    pub size: Quantity,
    /// What it holds once it is filled, for percents in status; unset where that is not known.
    pub models: Option<Quantity>,
}

/// First guess of what a job costs, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cost {
    /// Any job.
    pub fixed: f64,
    /// Each second of audio.
    pub per_audio_second: f64,
}

/// What golden probes say and ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresetProbe {
    /// Language, BCP-47 or `multi`.
    pub language: Option<String>,
    /// The engine's name of a voice.
    pub voice: Option<String>,
}

/// Names of a model: the listed one, and those that mean it too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetModel {
    /// Id in `/v1/models`.
    pub id: String,
    /// Other names.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Why presets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The administrator's file cannot be read.
    #[error("unable to read {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The text is no YAML of this form.
    #[error("{0} is not YAML with the maps bases and presets: {1}")]
    Form(String, String),
    /// A preset extends what is not there, or itself.
    #[error("preset {0} extends {1}, which is no base, or extends it in a circle")]
    Base(String, String),
    /// A preset lacks a field or has one of the wrong form.
    #[error("preset {0}: {1}")]
    Field(String, String),
}

/// All presets by name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Presets(Arc<BTreeMap<String, Vec<Preset>>>);

/// The form of a file: presets by name with one entry for each capability.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    bases: BTreeMap<String, Map<String, Value>>,
    presets: BTreeMap<String, Vec<Map<String, Value>>>,
}

impl Presets {
    /// Those that come with the operator, with the administrator's file merged over them.
    ///
    /// # Errors
    /// When a file cannot be read or is not of the form of the shipped one.
    pub fn load(overrides: Option<&Path>) -> Result<Self, Error> {
        let text = match overrides {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| Error::Read { path: path.display().to_string(), source })?,
            None => String::new(),
        };
        Self::parse(&text, overrides.map_or_else(String::new, |path| path.display().to_string()))
    }

    /// Those that come with the operator.
    ///
    /// # Errors
    /// When the embedded file is of the wrong form, which a test rules out.
    pub fn shipped() -> Result<Self, Error> {
        Self::parse("", String::new())
    }

    fn parse(overrides: &str, name: String) -> Result<Self, Error> {
        let mut file = read(SHIPPED, "presets.yaml")?;
        let over = if overrides.trim().is_empty() { File::default() } else { read(overrides, &name)? };
        for (name, fields) in over.bases {
            merge(file.bases.entry(name).or_default(), fields);
        }
        for (name, entries) in over.presets {
            let known = file.presets.entry(name).or_default();
            for (at, fields) in entries.into_iter().enumerate() {
                match known.get_mut(at) {
                    Some(known) => merge(known, fields),
                    None => known.push(fields),
                }
            }
        }
        let resolve = |(name, entries): (String, Vec<_>)| {
            let entries = entries.into_iter().map(|fields| preset(&name, fields, &file.bases));
            Ok((name.clone(), entries.collect::<Result<Vec<_>, Error>>()?))
        };
        Ok(Self(Arc::new(file.presets.into_iter().map(resolve).collect::<Result<_, Error>>()?)))
    }

    /// The preset of that name for that capability.
    #[must_use]
    pub fn get(&self, name: &str, capability: Capability) -> Option<&Preset> {
        self.0.get(name)?.iter().find(|preset| preset.capability == capability)
    }

    /// Names of those for that capability.
    pub fn names(&self, capability: Capability) -> impl Iterator<Item = &str> {
        let fits = move |presets: &[Preset]| presets.iter().any(|preset| preset.capability == capability);
        self.0.iter().filter(move |(_, presets)| fits(presets)).map(|(name, _)| name.as_str())
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = Vec::new();
        for (name, presets) in self.0.iter() {
            for preset in presets {
                let image = preset.image.as_ref().map_or_else(|| "-".to_owned(), PresetImage::reference);
                lines.push(format!(
                    "{name:28}{:5}{image:62}{:9}{:6}{}",
                    preset.capability.as_str(),
                    preset.gpu_memory.0,
                    preset.startup,
                    preset.summary,
                ));
                lines.extend(preset.caution.iter().map(|caution| format!("{:33}caution: {caution}", "")));
            }
        }
        let header = format!("{:28}{:5}{:62}{:9}{:6}{}", "NAME", "FOR", "IMAGE", "GPU", "START", "SUMMARY");
        std::iter::once(header).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

impl PresetImage {
    /// `repository`, with its tag or digest when it has one.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository),
            (None, Some(tag)) => format!("{}:{tag}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }
}

fn read(text: &str, name: &str) -> Result<File, Error> {
    serde_saphyr::from_str(text).map_err(|error| Error::Form(name.to_owned(), error.to_string()))
}

fn preset(
    name: &str,
    mut fields: Map<String, Value>,
    bases: &BTreeMap<String, Map<String, Value>>,
) -> Result<Preset, Error> {
    for _ in 0..=DEPTH {
        let Some(base) = fields.remove("extends") else {
            return serde_json::from_value(Value::Object(without_nulls(fields)))
                .map_err(|error| Error::Field(name.to_owned(), error.to_string()));
        };
        let base = base.as_str().unwrap_or_default();
        let mut merged =
            bases.get(base).cloned().ok_or_else(|| Error::Base(name.to_owned(), base.to_owned()))?;
        let above = merged.remove("extends");
        merge(&mut merged, fields);
        fields = merged;
        fields.extend(above.map(|above| ("extends".to_owned(), above)));
    }
    Err(Error::Base(name.to_owned(), "too many bases".to_owned()))
}

/// What is left when keys are taken away that are `null`, in maps within maps as well.
fn without_nulls(fields: Map<String, Value>) -> Map<String, Value> {
    let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
    kept.map(|(key, value)| match value {
        Value::Object(inner) => (key, Value::Object(without_nulls(inner))),
        value => (key, value),
    })
    .collect()
}

/// Merges `over` into `under`: maps key by key, all else replaced. A `null` stays until the last base is merged.
fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn http_port() -> i32 {
    9000
}

fn grpc_port() -> i32 {
    50051
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;
    use crate::reconcile::quantity;

    #[test]
    fn every_nim_names_its_pinned_image_or_says_why_not() {
        let presets = Presets::shipped().unwrap();
        for (name, preset) in presets.0.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
        {
            let nim = preset.server == Server::Nim;
            let pinned = preset.image.as_ref().is_some_and(|image| {
                image.digest.is_some() || image.tag.as_ref().is_some_and(|tag| tag != "latest")
            });
            let caution = preset.caution.as_deref().unwrap_or_default();
            assert!(!nim || pinned || caution.contains("image"), "{name} floats and does not say so");
            assert!(!nim || !caution.is_empty(), "{name} was never run on a GPU");
            assert_eq!(preset.gpu, preset.gpu_memory.0 != "0", "{name}");
            assert!(!preset.protocols.is_empty() && !preset.model.id.is_empty(), "{name}");
        }
    }

    #[test]
    fn kubectl_explain_names_every_preset_and_what_was_never_run() {
        let crd = serde_json::to_value(speechstack_crds::SpeechStack::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let text =
            spec["properties"]["stt"]["items"]["properties"]["preset"]["description"].as_str().unwrap();
        let (run, never) = text.split_once("Never run by this project").unwrap();
        for (name, presets) in Presets::shipped().unwrap().0.iter() {
            let part = if presets.iter().any(|preset| preset.caution.is_some()) { never } else { run };
            assert!(part.contains(name.as_str()), "{name}: {text}");
        }
    }

    #[test]
    fn the_table_names_every_preset_with_its_caution() {
        let presets = Presets::shipped().unwrap();
        let table = presets.table();
        for (name, all) in presets.0.iter() {
            let rows = table.lines().filter(|line| line.split(' ').next() == Some(name.as_str())).count();
            assert_eq!(rows, all.len(), "{name}");
            assert!(
                all.iter().filter_map(|one| one.caution.as_ref()).all(|text| table.contains(text)),
                "{name}"
            );
        }
    }

    #[test]
    fn documented_selectors_and_sizes_are_those_of_the_file() {
        let presets = Presets::shipped().unwrap();
        let get = |name, capability| presets.get(name, capability).unwrap();
        let nemotron = get("nemotron-asr-streaming", Capability::Stt);
        assert_eq!(nemotron.selector.as_deref(), Some("name=nemotron-asr-streaming,type=en-US,mode=str"));
        let chatterbox = get("chatterbox-multilingual", Capability::Tts);
        assert_eq!((chatterbox.gpu_memory.0.as_str(), chatterbox.protocols.len()), ("53800Mi", 2));
        assert!(get("magpie-flow", Capability::Tts).image.is_none(), "gone from the catalogue");
        assert!(presets.get("magpie-flow", Capability::Stt).is_none());
        assert!(presets.names(Capability::Tts).any(|name| name == "custom"));
    }

    #[test]
    fn every_engine_asks_for_cpu_and_memory_and_for_little_without_a_gpu() {
        let presets = Presets::shipped().unwrap();
        for (name, preset) in presets.0.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
        {
            let asked = |what: &str| preset.requests.get(what).and_then(quantity::units).unwrap_or_default();
            let (cpu, memory) = (asked("cpu"), asked("memory"));
            assert!(cpu > 0 && memory > 0, "{name} is the first that a full node evicts");
            let most = if preset.gpu { (2, 8 << 30) } else { (1, 1 << 30) };
            assert!(cpu <= most.0 && memory <= most.1, "{name} asks for {cpu} CPU and {memory} bytes");
        }
    }

    #[test]
    fn an_empty_map_takes_nothing_away_and_null_does() {
        let asked = |requests: &str| {
            let text = format!("presets: {{reference: [{{requests: {requests}}}]}}");
            let presets = Presets::parse(&text, "f".into()).unwrap();
            let keys = presets.get("reference", Capability::Stt).unwrap().requests.keys().cloned();
            keys.collect::<Vec<_>>()
        };
        assert_eq!(asked("{}"), ["cpu", "memory"]);
        assert_eq!(asked("{cpu: null}"), ["memory"]);
        assert!(asked("null").is_empty());
    }

    #[test]
    fn an_administrators_file_is_merged_over_the_shipped_one() {
        let text = "
bases: {stt-nim: {requests: {cpu: '4'}}}
presets:
  parakeet-ctc-1.1b-en: [{image: {tag: 1.6.0}, cache: {size: 50Gi}}]
  ours: [{extends: stt-nim, summary: ours, image: {repository: r.local/ours, digest: 'sha256:00'}, model: {id: ours}}]
";
        let presets = Presets::parse(text, "f".into()).unwrap();
        let ctc = presets.get("parakeet-ctc-1.1b-en", Capability::Stt).unwrap();
        let cache = ctc.cache.as_ref().unwrap();
        assert_eq!(
            ctc.image.as_ref().unwrap().reference(),
            "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us:1.6.0"
        );
        assert_eq!((cache.path.as_str(), cache.size.0.as_str()), ("/opt/nim/.cache", "50Gi"));
        assert_eq!(ctc.requests["cpu"].0, "4");
        let ours = presets.get("ours", Capability::Stt).unwrap();
        assert_eq!(ours.image.as_ref().unwrap().reference(), "r.local/ours@sha256:00");
        let refused = |text: &str| Presets::parse(text, "f".into()).unwrap_err().to_string();
        assert!(refused("presets: {a: [{extends: nothing}]}").contains("extends nothing"));
        assert!(refused("presets: {reference: [{colour: red}]}").contains("colour"));
        assert!(refused("presets: 5").contains("is not YAML"));
        assert!(refused("bases: {stt: {extends: stt-nim}}").contains("circle"));
    }
}
