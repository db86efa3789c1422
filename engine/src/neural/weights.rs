//! Tensors as a network takes them, in memory that several processes share.
//!
//! The published weights are of half precision and not aligned. They are written once, in single precision and aligned,
//! to a file beside them that is mapped by every process. Where the folder cannot be written, they stay in memory.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hasher;
use std::io::Write;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::ctranslate2::{self, Variable};
use super::{Error, files};
use crate::ffi;

/// Where a tensor begins: a multiple of this, in bytes.
const ALIGNMENT: usize = 64;
/// The form of the file; a change of it needs another number.
const FORM: u32 = 1;

/// Where a tensor is.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its first byte.
    pub offset: usize,
}

impl Slot {
    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.dims.iter().product::<usize>() * size_of::<f32>()
    }
}

/// The tensors of a model.
pub struct Weights {
    /// All of them, for the runtime.
    pub bytes: &'static [u8],
    slots: HashMap<String, Slot>,
}

impl Weights {
    /// Whisper's tensors, out of the published file.
    ///
    /// # Errors
    /// When the published file cannot be read, is another one, or malformed.
    pub fn whisper(models: &Path) -> Result<Self, Error> {
        const NAME: &str = "whisper-base/model.bin";
        let sum = files::published(NAME).unwrap_or_default();
        let path = models.join(format!("whisper-base/prepared-{FORM}-{}.weights", &sum[..sum.len().min(12)]));
        if let Some(prepared) = open(&path) {
            return Ok(prepared);
        }
        let variables = ctranslate2::variables(&files::read(models, NAME)?)?;
        let image = image(&variables);
        drop(variables);
        match write(&path, &image) {
            Ok(()) => {
                if let Some(prepared) = open(&path) {
                    return Ok(prepared);
                }
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "unable to keep prepared weights: they are not shared")
            }
        }
        parse(Vec::leak(image)).ok_or(Error::Format { file: NAME, reason: "cannot be prepared" })
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::Format`] when there is none, or not of these dimensions.
    pub fn slot(&self, name: &str, dims: &[usize]) -> Result<&Slot, Error> {
        let found = self.slots.get(name).filter(|slot| slot.dims == dims);
        found.ok_or(Error::Format {
            file: "whisper-base/model.bin",
            reason: "a tensor is missing or of another shape",
        })
    }
}

/// Index, tensors and a check sum: `u32` length of the index, the index as JSON, aligned tensors, `u64` xxh3.
fn image(variables: &[Variable]) -> Vec<u8> {
    let mut offset = 0;
    let mut index = Vec::new();
    for variable in variables {
        index.push((variable.name.as_str(), variable.dims.as_slice(), offset));
        offset += (variable.values.len() * size_of::<f32>()).next_multiple_of(ALIGNMENT);
    }
    let index = serde_json::to_vec(&index).unwrap_or_default();
    let start = (index.len() + size_of::<u32>()).next_multiple_of(ALIGNMENT);
    let mut image = Vec::with_capacity(start + offset + size_of::<u64>());
    image.extend((index.len() as u32).to_le_bytes());
    image.extend(index);
    image.resize(start, 0);
    for variable in variables {
        image.extend(variable.values.iter().flat_map(|value| value.to_le_bytes()));
        image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
    }
    image.extend(sum(&image).to_le_bytes());
    image
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The weights of a prepared file; `None` when it is not there or not whole.
fn open(path: &Path) -> Option<Weights> {
    parse(ffi::map(&File::open(path).ok()?).ok()?)
}

fn parse(image: &'static [u8]) -> Option<Weights> {
    let (content, check) = image.split_last_chunk::<8>()?;
    if sum(content) != u64::from_le_bytes(*check) {
        return None;
    }
    let length = u32::from_le_bytes(*content.first_chunk::<4>()?) as usize;
    let start = (length + size_of::<u32>()).next_multiple_of(ALIGNMENT);
    let index: Vec<(String, Vec<usize>, usize)> = serde_json::from_slice(content.get(4..4 + length)?).ok()?;
    let slots: HashMap<String, Slot> =
        index.into_iter().map(|(name, dims, offset)| (name, Slot { dims, offset: start + offset })).collect();
    let inside = |slot: &Slot| slot.offset.checked_add(slot.bytes()).is_some_and(|end| end <= content.len());
    slots.values().all(inside).then_some(Weights { bytes: content, slots })
}

/// Writes a file in one step, so that another process sees all of it or nothing.
fn write(path: &Path, image: &[u8]) -> std::io::Result<()> {
    let unfinished: PathBuf = path.with_extension(format!("{}.part", std::process::id()));
    let written = File::create(&unfinished).and_then(|mut file| file.write_all(image));
    let moved = written.and_then(|()| std::fs::rename(&unfinished, path));
    if moved.is_err() {
        let _may_be_absent = std::fs::remove_file(&unfinished);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(image: Vec<u8>) -> &'static [u8] {
        Vec::leak(image)
    }

    #[test]
    fn tensors_come_back_aligned_and_a_changed_file_is_refused() {
        let variable = |name: &str, values: &[f32]| Variable {
            name: name.into(),
            dims: vec![values.len()],
            values: values.to_vec(),
        };
        let made = image(&[variable("a", &[1.0, 2.0]), variable("b", &[3.0])]);
        let weights = parse(leak(made.clone())).unwrap();
        let slot = weights.slot("b", &[1]).unwrap();
        assert_eq!(slot.offset % ALIGNMENT, 0);
        assert_eq!(weights.bytes[slot.offset..slot.offset + 4], 3.0_f32.to_le_bytes());
        assert!(weights.slot("b", &[2]).is_err() && weights.slot("c", &[1]).is_err());
        for place in [0, 5, made.len() / 2, made.len() - 1] {
            let mut changed = made.clone();
            changed[place] ^= 1;
            assert!(parse(leak(changed)).is_none(), "byte {place}");
        }
        assert!(parse(leak(made[..made.len() - 1].to_vec())).is_none());
    }
}
