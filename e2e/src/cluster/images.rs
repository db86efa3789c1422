//! The images that clusters run, built from the Containerfiles that users build, on a local base.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use twox_hash::XxHash3_64;

use super::layout::Layout;
use crate::binaries;

pub mod arch;
mod list;

use arch::Arch;

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/speechstack/pause:dev";
/// The operator's image.
pub const OPERATOR: &str = "docker.io/speechstack/operator:dev";
/// The image of gateway and guard.
pub const PROXY: &str = "docker.io/speechstack/proxy:dev";
/// The reference engine's image.
pub const ENGINE: &str = "docker.io/speechstack/engine:dev";

/// The engine's image with neural models as a layer.
pub const MODELS: &str = "docker.io/speechstack/engine-models:dev";

/// What every base image has: enough to run a program, and a shell for tests that look around in containers.
const BASE_PACKAGES: &str = "base-files,ca-certificates,coreutils,dash,libc6,libgcc-s1,libstdc++6,tzdata";
/// What the reference engine needs beyond that; its Containerfile names the same.
const SPEECH_PACKAGES: &str = "libflite1,libpocketsphinx3,libsphinxbase3,pocketsphinx-en-us";
/// What no test reads only makes every start of a cluster slower; and since packages are only unpacked, what
/// their scripts would link is linked here.
const HOOKS: [&str; 2] = [
    r#"cd "$1/usr/share" && rm -rf doc locale man X11 zoneinfo/posix zoneinfo/right"#,
    r#"for lib in "$1"/usr/lib/*/blas/libblas.so.3 "$1"/usr/lib/*/lapack/liblapack.so.3; do
        ! test -e "$lib" || ln -s "${lib#"${lib%/*/*}/"}" "${lib%/*/*}/"; done"#,
];

/// One image: its Containerfile's folder, the binaries in its context, and its base.
struct Image {
    name: &'static str,
    tag: &'static str,
    binaries: &'static [&'static str],
    base: Base,
}

#[derive(Clone, Copy, PartialEq)]
enum Base {
    Scratch,
    Plain,
    Speech,
}

const IMAGES: [Image; 4] = [
    Image { name: "pause", tag: PAUSE, binaries: &[], base: Base::Scratch },
    Image { name: "operator", tag: OPERATOR, binaries: &["speechstack-operator"], base: Base::Plain },
    Image {
        name: "proxy",
        tag: PROXY,
        binaries: &["speechstack-proxy", "speechstack-livez"],
        base: Base::Plain,
    },
    Image { name: "engine", tag: ENGINE, binaries: &["speechstack-engine"], base: Base::Speech },
];

/// The archives of all images.
///
/// # Errors
/// When one was not built.
pub fn built(layout: &Layout) -> Result<Vec<PathBuf>> {
    IMAGES
        .iter()
        .map(|image| {
            let archive = archive(layout, image.name);
            ensure!(archive.is_file(), "{} is missing: run `make images` first", archive.display());
            Ok(archive)
        })
        .collect()
}

/// The archive of the engine's image with models; `None` when it was not built.
pub fn built_models(layout: &Layout) -> Option<PathBuf> {
    Some(archive(layout, "engine-models")).filter(|archive| archive.is_file())
}

/// Builds the engine's image with the models of a folder, as its Containerfile says to users.
///
/// # Errors
/// When the folder cannot be read or a tool fails.
pub async fn build_models(layout: &Layout, models: &Path) -> Result<()> {
    build(layout).await?;
    let mut hash = XxHash3_64::new();
    hash.write(&std::fs::read(folder(layout).join("engine.hash"))?);
    for entry in std::fs::read_dir(models).with_context(|| format!("unable to read {}", models.display()))? {
        for file in std::fs::read_dir(entry?.path())? {
            let file = file?;
            hash.write(format!("{} {}\n", file.path().display(), file.metadata()?.len()).as_bytes());
        }
    }
    let hash = format!("{:016x}\n", hash.finish());
    let (archive, stamp) = (archive(layout, "engine-models"), folder(layout).join("engine-models.hash"));
    if archive.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|built| built == hash) {
        return Ok(());
    }
    eprintln!("building image {MODELS}");
    let containerfile = binaries::repository().join("engine/Containerfile.models").display().to_string();
    let (engine, context) = (format!("ENGINE={ENGINE}"), models.display().to_string());
    let arguments = [
        "--isolation=chroot",
        "--pull-never",
        "--build-arg",
        &engine,
        "--file",
        &containerfile,
        "--tag",
        MODELS,
    ];
    buildah(layout, &[&["bud"], &arguments[..], &[&context]].concat()).await?;
    push(layout, MODELS, &archive).await?;
    std::fs::write(&stamp, hash)?;
    Ok(())
}

/// Builds the images whose binaries or Containerfile changed since they were built.
///
/// # Errors
/// When a binary is missing or a tool fails.
pub async fn build(layout: &Layout) -> Result<()> {
    std::fs::create_dir_all(folder(layout))?;
    let lock = std::fs::File::create(folder(layout).join("lock"))?;
    lock.lock().context("unable to wait for another build of the images")?;
    std::fs::write(
        folder(layout).join("policy.json"),
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )?;
    for image in &IMAGES {
        build_one(layout, image, Arch::Amd64).await?;
    }
    Ok(())
}

/// Builds operator and proxy for both architectures, and a manifest list of both for each, in an OCI archive.
///
/// # Errors
/// When a binary is missing or of another architecture, a tool fails, or a list lacks one.
pub async fn build_lists(layout: &Layout) -> Result<()> {
    build(layout).await?;
    for image in IMAGES.iter().filter(|image| image.base == Base::Plain) {
        build_one(layout, image, Arch::Arm64).await?;
        list::write(layout, image.name, image.tag).await?;
    }
    Ok(())
}

async fn build_one(layout: &Layout, image: &Image, arch: Arch) -> Result<()> {
    let built = try_build(layout, image, arch).await;
    built.with_context(|| format!("unable to build the image {} for {}", image.name, arch.name()))
}

async fn try_build(layout: &Layout, image: &Image, arch: Arch) -> Result<()> {
    let files = files(layout, image, arch)?;
    let suite = suite()?;
    let tag = &arch.tag(image.tag);
    let name = &arch.file(image.name);
    let mut hash = XxHash3_64::new();
    hash.write(format!("{suite} {tag} {BASE_PACKAGES} {SPEECH_PACKAGES} {HOOKS:?}").as_bytes());
    for (_, source) in &files {
        hash.write(&std::fs::read(source).with_context(|| format!("{} is missing", source.display()))?);
    }
    let hash = format!("{:016x}\n", hash.finish());
    let (archive, stamp) = (archive(layout, name), folder(layout).join(format!("{name}.hash")));
    if archive.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|built| built == hash) {
        return Ok(());
    }
    eprintln!("building image {tag}");
    let context = tempfile::tempdir_in(folder(layout))?;
    for (name, source) in &files {
        let target = context.path().join(name);
        if image.binaries.contains(name) {
            // Debug information would make the images several times as large.
            let mut command = Command::new(arch.objcopy());
            command.arg("--strip-debug").arg(source).arg(target);
            finish(command).await?;
        } else {
            std::fs::copy(source, target)?;
        }
    }
    let base = base(layout, image.base, arch, &suite).await?;
    buildah(
        layout,
        &[
            "bud",
            "--isolation=chroot",
            "--pull-never",
            "--arch",
            arch.name(),
            "--build-arg",
            &format!("BASE={base}"),
            "--build-arg=PACKAGES=",
            "--tag",
            tag,
            &context.path().display().to_string(),
        ],
    )
    .await?;
    push(layout, tag, &archive).await?;
    std::fs::write(&stamp, hash)?;
    Ok(())
}

/// Writes an image into its archive.
async fn push(layout: &Layout, tag: &str, archive: &Path) -> Result<()> {
    // In this form the layers stay uncompressed, which makes every start of a cluster seconds faster.
    let partial = archive.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    buildah(layout, &["push", tag, &format!("docker-archive:{}:{tag}", partial.display())]).await?;
    // Layers that nothing names any more would pile up.
    buildah(layout, &["rmi", "--prune"]).await?;
    std::fs::rename(&partial, archive)?;
    Ok(())
}

/// The files of an image's build context: its Containerfile and its binaries.
fn files(layout: &Layout, image: &Image, arch: Arch) -> Result<Vec<(&'static str, PathBuf)>> {
    let repository = binaries::repository();
    if image.base == Base::Scratch {
        return Ok(vec![
            ("Containerfile", repository.join("e2e/cluster/pause/Containerfile")),
            ("pause", layout.binary("pause")?),
        ]);
    }
    let mut files = vec![("Containerfile", repository.join(image.name).join("Containerfile"))];
    for binary in image.binaries {
        let mut path = binaries::folder()?.join(binary);
        // Linked statically, which takes a target of its own, as another architecture does.
        if *binary == "speechstack-livez" || arch != Arch::Amd64 {
            let profile = binaries::folder()?;
            let profile = profile.file_name().context("no profile")?;
            path = layout.root().with_file_name(arch.target()).join(profile).join(binary);
        }
        ensure!(path.is_file(), "{} is missing: run `make {}`", path.display(), arch.goal());
        arch.check(&path)?;
        files.push((binary, path));
    }
    Ok(files)
}

/// The local base image, made once from Debian packages.
async fn base(layout: &Layout, base: Base, arch: Arch, suite: &str) -> Result<String> {
    let (name, packages) = match base {
        Base::Scratch => return Ok("scratch".to_owned()),
        Base::Plain => ("plain", BASE_PACKAGES.to_owned()),
        Base::Speech => ("speech", format!("{BASE_PACKAGES},{SPEECH_PACKAGES}")),
    };
    let recipe = format!("{suite} {packages} {HOOKS:?}");
    let hash = XxHash3_64::oneshot(recipe.as_bytes());
    let tag = format!("localhost/speechstack/base-{}:{hash:016x}", arch.file(name));
    if buildah(layout, &["images", "--quiet", &tag]).await.is_ok() {
        return Ok(tag);
    }
    eprintln!("building base image {} of Debian {suite}", arch.file(name));
    let context = tempfile::tempdir_in(folder(layout))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=extract"]).arg(format!("--include={packages}"));
    command.arg(format!("--architectures={}", arch.name()));
    command.args(HOOKS.map(|hook| format!("--extract-hook={hook}")));
    command.arg(suite).arg(context.path().join("base.tar"));
    finish(command).await?;
    std::fs::write(context.path().join("Containerfile"), "FROM scratch\nADD base.tar /\n")?;
    let context = context.path().display().to_string();
    buildah(layout, &["bud", "--isolation=chroot", "--arch", arch.name(), "--tag", &tag, &context]).await?;
    Ok(tag)
}

/// This machine's Debian release, whose C library the binaries were built for.
fn suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("this is no Debian")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no release")?.to_owned())
}

fn folder(layout: &Layout) -> PathBuf {
    layout.root().join("images")
}

fn archive(layout: &Layout, name: &str) -> PathBuf {
    folder(layout).join(format!("{name}.tar"))
}

async fn buildah(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let storage = layout.root().join("buildah");
    let mut command = Command::new("buildah");
    command.args(["--storage-driver=vfs", "--root"]).arg(storage.join("root"));
    command.arg("--runroot").arg(storage.join("run"));
    let (verb, rest) = arguments.split_first().context("no command")?;
    command.arg(verb);
    if matches!(*verb, "bud" | "push") {
        command.arg("--signature-policy").arg(folder(layout).join("policy.json"));
    }
    command.args(rest);
    finish(command).await.map(drop)
}

/// What it printed.
async fn finish(mut command: Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("unable to run {command:?}"))?;
    let told = [&output.stdout[..], &output.stderr].concat();
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&told));
    Ok(output.stdout)
}
