//! Finds the built binaries beside the test executable.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The engine's binary.
pub const ENGINE: &str = "speechstack-engine";
/// The proxy's binary.
pub const PROXY: &str = "speechstack-proxy";

/// The folder of this build's binaries, `target/<profile>`.
///
/// # Errors
/// When the running executable has no such folder above it.
pub fn folder() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("the running executable has no path")?;
    let folder = executable.parent().context("the running executable has no folder")?;
    // Tests run from target/<profile>/deps, the bench from target/<profile>.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The path of a binary of this build.
///
/// # Errors
/// When it was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    Ok(path)
}

/// A folder under `target/` that outlives the tests, for logs.
///
/// # Errors
/// When it cannot be made.
pub fn logs() -> Result<PathBuf> {
    let folder = folder()?;
    let logs = folder.parent().unwrap_or(&folder).join("e2e");
    std::fs::create_dir_all(&logs).with_context(|| format!("unable to make {}", logs.display()))?;
    Ok(logs)
}

/// The repository's root.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
