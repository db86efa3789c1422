//! Where a cluster keeps its files, and what is named after it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::binaries;

/// The files and names of one cluster; two of the same tree differ by name, those of two trees by their folder.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    name: String,
}

impl Layout {
    /// The layout of the cluster `name` of this tree.
    ///
    /// # Errors
    /// When the tree lies where nodes have folders of their own, so that they could not see it.
    pub fn new(name: &str) -> Result<Self> {
        let repository = binaries::repository();
        let repository =
            repository.canonicalize().with_context(|| format!("unable to find {}", repository.display()))?;
        for hidden in ["/run", "/var/lib", "/var/log", "/var/run"] {
            ensure!(
                !repository.starts_with(hidden),
                "a cluster's nodes have a {hidden} of their own: put the tree elsewhere than {}",
                repository.display()
            );
        }
        Ok(Self { root: repository.join("target/cluster"), name: name.to_owned() })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name that no other cluster of this machine has: that of its control groups, and its processes' mark.
    pub fn unique(&self) -> String {
        let hash = twox_hash::XxHash3_64::oneshot(self.run().as_os_str().as_bytes());
        format!("speechstack-{:08x}", hash as u32)
    }

    /// `target/cluster`, what outlives clusters.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of everything that ends with this cluster.
    pub fn run(&self) -> PathBuf {
        self.root.join("run").join(&self.name)
    }

    /// The logs of the cluster's parts; they stay until the next start.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs").join(&self.name)
    }

    /// Where failed tests put what they saw.
    pub fn dumps(&self) -> PathBuf {
        self.root.join("dumps")
    }

    /// The folder of the components' binaries.
    pub fn binaries(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// A component's binary.
    ///
    /// # Errors
    /// When it was not built.
    pub fn binary(&self, component: &str) -> Result<PathBuf> {
        let path = self.binaries().join(component);
        ensure!(path.is_file(), "{} is missing: run `make cluster-binaries` first", path.display());
        Ok(path)
    }

    /// A key or certificate.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.run().join("pki").join(file)
    }

    /// The client configuration of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.run().join(format!("{user}.kubeconfig"))
    }

    /// The folder of a node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.run().join(node)
    }

    /// `PATH` for commands inside the cluster: its components and the tools of the tree come first.
    pub fn search_path(&self) -> String {
        let tools = self.root.with_file_name("tools").join("bin");
        let usual = std::env::var("PATH").unwrap_or_else(|_| SYSTEM_PATH.to_owned());
        format!("{}:{}:{usual}", self.binaries().display(), tools.display())
    }
}

/// Where the system's own programs are.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
