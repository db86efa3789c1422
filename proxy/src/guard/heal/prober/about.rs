//! What an engine says of itself: its model and the profile that its container chose.

use serde::Deserialize;

use super::{Prober, SHALLOW_TIMEOUT};

/// Where NVIDIA's containers tell of their model and profile.
const METADATA: &str = "/v1/metadata";
/// Where servers with OpenAI's API list their models.
const MODELS: &str = "/v1/models";
/// Characters kept of a name.
const NAME_CHARS: usize = 128;

/// What an engine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The instance that said it.
    instance: String,
    /// Its model.
    pub model: Option<String>,
    /// The profile that its container chose.
    pub profile: Option<String>,
}

/// NVIDIA's metadata, as far as it is read, and the reference engine's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "modelInfo")]
    info: Vec<Info>,
    #[serde(rename = "selectedModelProfileId")]
    selected: Option<String>,
    profile: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    short_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Models {
    data: Vec<Model>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    id: Option<String>,
}

impl Prober {
    /// Asks the instance for its model and profile, once: what cannot be read stays unknown until the next instance.
    pub async fn learn(&self, instance: &str) {
        if self.about.lock().instance == instance {
            return;
        }
        let documents = async { (self.document(METADATA).await, self.document(MODELS).await) };
        let read = tokio::time::timeout(SHALLOW_TIMEOUT, documents).await;
        let (metadata, models) = read.unwrap_or_default();
        let configured = self.protocols.settings().model.clone();
        *self.about.lock() = about(instance, &metadata, &models, configured.as_deref());
    }

    /// What that instance said of itself, as far as it was asked.
    pub fn about(&self, instance: &str) -> About {
        let about = self.about.lock();
        if about.instance == instance { about.clone() } else { About::default() }
    }

    async fn document(&self, path: &str) -> Vec<u8> {
        let reply = self.ask(path).await.ok().filter(|reply| reply.status.is_success());
        reply.map(|reply| reply.body).unwrap_or_default()
    }
}

/// Reads the two documents. Of a list of models the configured one counts, else the first.
fn about(instance: &str, metadata: &[u8], models: &[u8], configured: Option<&str>) -> About {
    let metadata: Metadata = serde_json::from_slice(metadata).unwrap_or_default();
    let models: Models = serde_json::from_slice(models).unwrap_or_default();
    let ids: Vec<String> = models.data.into_iter().filter_map(|model| model.id).collect();
    let listed = ids.iter().find(|id| Some(id.as_str()) == configured).or_else(|| ids.first()).cloned();
    let own = metadata.info.into_iter().find_map(|info| info.short_name);
    About {
        instance: instance.to_owned(),
        model: own.or(listed).and_then(name),
        profile: metadata.selected.or(metadata.profile).and_then(name),
    }
}

/// A name that can be shown; none when it is empty.
fn name(text: String) -> Option<String> {
    let name: String = text.trim().chars().filter(|char| !char.is_control()).take(NAME_CHARS).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(metadata: &str, models: &str, configured: Option<&str>) -> (Option<String>, Option<String>) {
        let about = about("1", metadata.as_bytes(), models.as_bytes(), configured);
        (about.model, about.profile)
    }

    #[test]
    fn a_container_tells_its_model_and_profile_and_other_servers_their_model() {
        let nim = r#"{"version": "1.4.0", "licenseInfo": {"name": "NVIDIA"}, "selectedModelProfileId": "09c2b6e5",
            "modelInfo": [{"modelUrl": "ngc://nim/nvidia/a:1", "shortName": "parakeet-0-6b-tdt:v3"}]}"#;
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(said(nim, "", None), (some("parakeet-0-6b-tdt:v3"), some("09c2b6e5")));
        let list = r#"{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}"#;
        assert_eq!(said("", list, None), (some("a"), None));
        assert_eq!(said("not JSON", list, Some("b")), (some("b"), None));
        assert_eq!(said("{}", list, Some("c")), (some("a"), None));
        assert_eq!(said(r#"{"modelInfo": 5}"#, "[]", None), (None, None), "odd answers are none");
        let long = format!(r#"{{"data": [{{"id": "{}\\n"}}]}}"#, "x".repeat(500));
        assert_eq!(said("", &long, None).0.unwrap().len(), NAME_CHARS);
    }
}
