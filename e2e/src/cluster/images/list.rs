//! Manifest lists: one name for the images of all architectures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::arch::Arch;
use super::{buildah, finish, folder};
use crate::cluster::layout::Layout;

/// Writes the list of an image's architectures with all of them into `NAME.oci.tar`, and checks that none is missing.
pub(super) async fn write(layout: &Layout, name: &str, tag: &str) -> Result<PathBuf> {
    let list = format!("localhost/speechstack/{name}:list");
    // One of an earlier build.
    let _ = buildah(layout, &["rmi", &list]).await;
    buildah(layout, &["manifest", "create", &list]).await?;
    for arch in Arch::ALL {
        buildah(layout, &["manifest", "add", &list, &arch.tag(tag)]).await?;
    }
    let archive = folder(layout).join(format!("{name}.oci.tar"));
    let partial = archive.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let policy = folder(layout).join("policy.json").display().to_string();
    let target = format!("oci-archive:{}:{tag}", partial.display());
    buildah(layout, &["manifest", "push", "--all", "--signature-policy", &policy, &list, &target]).await?;
    let found = architectures(&blob(&partial, &outer(&partial).await?).await?);
    let wanted = Arch::ALL.map(|arch| arch.name().to_owned()).into();
    ensure!(found == wanted, "the list {tag} has {found:?}");
    std::fs::rename(&partial, &archive)?;
    eprintln!("{} has {tag} for {found:?}", archive.display());
    Ok(archive)
}

/// The digest of the list in an archive.
async fn outer(archive: &Path) -> Result<String> {
    let index = member(archive, "index.json").await?;
    let digest = index["manifests"][0]["digest"].as_str().context("an empty archive")?;
    Ok(digest.to_owned())
}

async fn blob(archive: &Path, digest: &str) -> Result<Value> {
    member(archive, &format!("blobs/{}", digest.replace(':', "/"))).await
}

async fn member(archive: &Path, name: &str) -> Result<Value> {
    let mut command = Command::new("tar");
    command.arg("-xOf").arg(archive).arg(name);
    let text = finish(command).await?;
    serde_json::from_slice(&text).with_context(|| format!("{name} is no JSON"))
}

/// The architectures of a list; none where it is the manifest of a single image.
fn architectures(list: &Value) -> BTreeSet<String> {
    let images = list["manifests"].as_array().into_iter().flatten();
    images.filter_map(|image| image["platform"]["architecture"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_names_its_architectures_and_a_single_image_is_no_list() {
        let of =
            |arch: &str| json!({"digest": "sha256:0", "platform": {"architecture": arch, "os": "linux"}});
        let both = json!({"manifests": [of("amd64"), of("arm64")]});
        assert_eq!(architectures(&both), Arch::ALL.map(|arch| arch.name().to_owned()).into());
        assert_eq!(architectures(&json!({"manifests": [of("amd64"), of("amd64")]})).len(), 1);
        assert!(architectures(&json!({"config": {}, "layers": []})).is_empty());
    }
}
