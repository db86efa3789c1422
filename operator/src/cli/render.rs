//! What the operator would apply for a file, without a cluster (the file is read; the rest is pure).

use std::path::Path;

use kube::ResourceExt;
use speechstack_crds::SpeechStack;

use crate::preset::{self, Presets};
use crate::reconcile::build;
use crate::reconcile::observe::Observed;
use crate::reconcile::validate::{self, Defaults};
use crate::watch::Optional;

/// Why a file cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to read {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The presets cannot be read.
    #[error(transparent)]
    Presets(#[from] preset::Error),
    /// The file has no SpeechStack, or one that cannot be read.
    #[error("{0}")]
    Form(String),
    /// A stack cannot be carried out.
    #[error("stack {name}: {source}")]
    Invalid {
        /// The stack.
        name: String,
        /// The reasons.
        #[source]
        source: validate::Error,
    },
}

/// All objects of the stacks in the file, as YAML.
///
/// # Errors
/// When the file is no YAML of stacks that can be carried out.
pub fn render(file: &Path, presets: Option<&Path>, proxy_image: &str) -> Result<String, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| Error::Read { path: file.display().to_string(), source })?;
    let presets = Presets::load(presets)?;
    let stacks: Vec<SpeechStack> =
        serde_saphyr::from_multiple(&text).map_err(|error| Error::Form(error.to_string()))?;
    of(&stacks, presets, proxy_image)
}

fn of(stacks: &[SpeechStack], presets: Presets, proxy_image: &str) -> Result<String, Error> {
    let defaults = Defaults {
        proxy_image: proxy_image.to_owned(),
        engine_image: None,
        subject: "system:serviceaccount:NAMESPACE:OPERATOR".into(),
        presets,
        image_registry: None,
        image_pull_secrets: Vec::new(),
        fixed_user: true,
    };
    let optional = Optional { http_route: true, pod_monitor: true, prometheus_rule: true };
    let observed = Observed { optional, ..Observed::default() };
    let mut text = String::new();
    for stack in stacks {
        let valid = validate::validate(stack, &observed, &defaults)
            .map_err(|source| Error::Invalid { name: stack.name_any(), source })?;
        for object in build::build(&valid, &observed).objects() {
            let yaml = serde_saphyr::to_string(&object).map_err(|error| Error::Form(error.to_string()))?;
            text.push_str("---\n");
            text.push_str(&yaml);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_its_objects_or_its_problems() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stack = |spec: &str| {
            format!(
                "apiVersion: speechstack.dev/v1alpha1\nkind: SpeechStack\nmetadata: {{name: demo}}\nspec: {spec}\n"
            )
        };
        let rendered = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            render(file.path(), None, "p:1").map_err(|error| error.to_string())
        };
        let good = rendered(&stack("{stt: [{name: ears, preset: parakeet-rnnt-1.1b}]}")).unwrap();
        for words in
            ["kind: StatefulSet", "nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual:1.5.0", "image: p:1"]
        {
            assert!(good.contains(words), "{words}");
        }
        let bad = rendered(&stack("{stt: [{name: ears, preset: custom}]}")).unwrap_err();
        assert!(bad.contains("stack demo") && bad.contains("image.repository"), "{bad}");
        assert!(rendered("kind: [").is_err());
    }
}
