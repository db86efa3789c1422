//! The architectures that images are built for.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// That of clusters here.
    Amd64,
    /// Built by a cross compiler.
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// As images and Debian name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's target.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What makes its binaries.
    pub(super) fn goal(self) -> &'static str {
        match self {
            Self::Amd64 => "images",
            Self::Arm64 => "images-arm64",
        }
    }

    /// The program that strips its binaries.
    pub(super) fn objcopy(self) -> &'static str {
        match self {
            Self::Amd64 => "objcopy",
            Self::Arm64 => "aarch64-linux-gnu-objcopy",
        }
    }

    /// The tag of its image, beside that of amd64.
    pub(super) fn tag(self, tag: &str) -> String {
        self.file(tag)
    }

    /// The name of a file that belongs to it.
    pub(super) fn file(self, name: &str) -> String {
        match self {
            Self::Amd64 => name.to_owned(),
            Self::Arm64 => format!("{name}-arm64"),
        }
    }

    /// Refuses a program of another architecture, by the header of its ELF file.
    pub(super) fn check(self, program: &Path) -> Result<()> {
        let mut head = [0; 20];
        std::fs::File::open(program)?.read_exact(&mut head).context("no program")?;
        let machine = u16::from_le_bytes([head[18], head[19]]);
        let wanted = match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        };
        let name = program.display();
        ensure!(machine == wanted, "{name} is for machine {machine}, {} is {wanted}", self.name());
        Ok(())
    }
}
