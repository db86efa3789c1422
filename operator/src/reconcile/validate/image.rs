//! Image references: preset or operator default, with what the user replaces of it.

use speechstack_crds::{Image, PullPolicy};

use super::Problem;

/// An image as a container names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// `repository:tag` or `repository@digest`.
    pub reference: String,
    /// `Always`, `IfNotPresent` or `Never`. Not the kubelet's own rule, by which a repair would ask the registry for `latest`.
    pub pull_policy: &'static str,
}

/// Splits `repository[:tag][@digest]` into the repository and the rest with its separator.
fn split(reference: &str) -> (&str, &str) {
    let name = reference.rfind('/').map_or(0, |slash| slash + 1);
    let end = reference[name..].find(['@', ':']).map_or(reference.len(), |at| name + at);
    reference.split_at(end)
}

/// The image that `wanted` makes of `default`.
pub fn resolve(field: &str, wanted: Option<&Image>, default: &str, problems: &mut Vec<Problem>) -> ImageRef {
    let (repository, version) = split(default);
    let repository = wanted.and_then(|image| image.repository.as_deref()).unwrap_or(repository);
    if repository.is_empty() {
        problems.push(Problem::field(field, "this preset has no image of its own: set image.repository"));
    }
    let own_version = wanted.is_none_or(|image| image.repository.is_none());
    let version = match wanted.map(|image| (&image.digest, &image.tag)) {
        Some((Some(digest), _)) => format!("@{digest}"),
        Some((None, Some(tag))) => format!(":{tag}"),
        // A version belongs to its repository: another one starts at latest.
        _ if own_version && !version.is_empty() => version.to_owned(),
        _ => ":latest".to_owned(),
    };
    let carries_version = !split(repository).1.is_empty();
    ImageRef {
        reference: if carries_version { repository.to_owned() } else { format!("{repository}{version}") },
        pull_policy: wanted.and_then(|image| image.pull_policy).unwrap_or(PullPolicy::IfNotPresent).as_str(),
    }
}

/// `image`, the CPU engine's, with what the preset's repository adds to the name `engine`.
pub fn beside(image: &str, repository: &str) -> String {
    let (own, version) = split(image);
    let name = repository.rsplit('/').next().unwrap_or(repository);
    format!("{own}{}{version}", name.strip_prefix("engine").unwrap_or_default())
}

/// `repository` with its registry replaced by a mirror.
pub fn mirrored(repository: &str, registry: Option<&str>) -> String {
    let Some(registry) = registry.map(|registry| registry.trim_end_matches('/')) else {
        return repository.to_owned();
    };
    let path = match repository.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => repository,
    };
    format!("{registry}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(wanted: Option<Image>, default: &str) -> String {
        let mut problems = Vec::new();
        let image = resolve("image", wanted.as_ref(), default, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        image.reference
    }

    #[test]
    fn the_image_with_models_stands_beside_that_without() {
        assert_eq!(beside("r.io:5000/a/engine:dev", "speechstack/engine"), "r.io:5000/a/engine:dev");
        assert_eq!(
            beside("r.io:5000/a/engine:dev", "speechstack/engine-models"),
            "r.io:5000/a/engine-models:dev"
        );
        assert_eq!(
            beside("cpu-speech@sha256:00", "speechstack/engine-models"),
            "cpu-speech-models@sha256:00"
        );
    }

    #[test]
    fn what_the_user_names_replaces_what_the_default_has() {
        let tag = |tag: &str| Some(Image { tag: Some(tag.into()), ..Image::default() });
        let repository = |name: &str| Some(Image { repository: Some(name.into()), ..Image::default() });
        assert_eq!(resolved(None, "r.io:5000/a/b:1"), "r.io:5000/a/b:1");
        assert_eq!(resolved(None, "a/b"), "a/b:latest");
        assert_eq!(resolved(tag("2"), "r.io:5000/a/b:1"), "r.io:5000/a/b:2");
        assert_eq!(resolved(tag("2"), "a/b@sha256:00"), "a/b:2");
        assert_eq!(resolved(repository("c/d"), "a/b:1"), "c/d:latest");
        assert_eq!(resolved(repository("c/d:7"), "a/b:1"), "c/d:7");
        let digest = Image { digest: Some("sha256:aa".into()), ..Image::default() };
        assert_eq!(resolved(Some(digest), "a/b:1"), "a/b@sha256:aa");
    }

    #[test]
    fn a_mirror_replaces_the_registry_only() {
        assert_eq!(
            mirrored("nvcr.io/nim/nvidia/x", Some("mirror.local:5000")),
            "mirror.local:5000/nim/nvidia/x"
        );
        assert_eq!(
            mirrored("speechstack/engine", Some("mirror.local/sub/")),
            "mirror.local/sub/speechstack/engine"
        );
        assert_eq!(mirrored("nvcr.io/nim/x", None), "nvcr.io/nim/x");
    }

    #[test]
    fn a_repair_needs_no_registry_unless_the_user_wants_it() {
        let policy = |wanted: Image| resolve("image", Some(&wanted), "a/b", &mut Vec::new()).pull_policy;
        assert_eq!(resolve("image", None, "a/b:latest", &mut Vec::new()).pull_policy, "IfNotPresent");
        assert_eq!(policy(Image { tag: Some("latest".into()), ..Image::default() }), "IfNotPresent");
        assert_eq!(policy(Image { pull_policy: Some(PullPolicy::Always), ..Image::default() }), "Always");
    }

    #[test]
    fn no_image_at_all_is_a_problem() {
        let mut problems = Vec::new();
        resolve("spec.stt[a].image", None, "", &mut problems);
        assert!(problems[0].message.contains("image.repository"));
    }
}
