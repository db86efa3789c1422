//! Tensors as a network takes them, in memory that several processes share.
//!
//! The published weights are of half precision and not aligned. They are written once, in single precision or in 8 bits, and aligned,
//! to a file beside them that is mapped by every process. Where the folder cannot be written, they stay in memory.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hasher;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::ctranslate2::{self, Variable};
use super::quantize::{self, Precision};
use super::{Error, files};
use crate::ffi;

/// Where a tensor begins: a multiple of this, in bytes.
const ALIGNMENT: usize = 64;
/// The form of the file; a change of it needs another number.
const FORM: u32 = 2;

/// The numbers of a tensor, in rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Single precision.
    Floats(Vec<f32>),
    /// Whole numbers of 8 bits.
    Bytes(Vec<i8>),
}

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Such as `encoder/conv1/weight`.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// As many as the dimensions say.
    pub numbers: Numbers,
}

/// Where a tensor is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its first byte.
    pub offset: usize,
    /// Whether its numbers have 8 bits.
    pub is_bytes: bool,
}

impl Slot {
    /// Its length in bytes; `None` when no memory holds so much.
    pub fn bytes(&self) -> Option<usize> {
        let size = if self.is_bytes { size_of::<i8>() } else { size_of::<f32>() };
        self.dims.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size))
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
    pub fn whisper(models: &Path, precision: Precision) -> Result<Self, Error> {
        const NAME: &str = "whisper-base/model.bin";
        let sum = files::published(NAME).unwrap_or_default();
        let sum = &sum[..sum.len().min(12)];
        let path = models.join(format!("whisper-base/prepared-{FORM}-{precision}-{sum}.weights"));
        if let Some(prepared) = open(&path) {
            return Ok(prepared);
        }
        let variables = ctranslate2::variables(&files::read(models, NAME)?)?;
        let tensors: Vec<Tensor> =
            variables.into_iter().flat_map(|variable| prepared(variable, precision)).collect();
        let image = image(&tensors);
        drop(tensors);
        match write(&path, &image) {
            Ok(()) => {
                forget(&path);
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

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.slots.contains_key(name)
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

/// A variable as the networks take it.
fn prepared(variable: Variable, precision: Precision) -> Vec<Tensor> {
    if precision.rounds(&variable.name) {
        return quantize::columns(&variable).into();
    }
    vec![Tensor { name: variable.name, dims: variable.dims, numbers: Numbers::Floats(variable.values) }]
}

/// Index, tensors and a check sum: `u32` length of the index, the index as JSON, aligned tensors, `u64` xxh3.
fn image(tensors: &[Tensor]) -> Vec<u8> {
    let mut offset = 0;
    let mut index: Vec<(&str, Slot)> = Vec::new();
    for tensor in tensors {
        let is_bytes = matches!(tensor.numbers, Numbers::Bytes(_));
        let slot = Slot { dims: tensor.dims.clone(), offset, is_bytes };
        offset += slot.bytes().unwrap_or(0).next_multiple_of(ALIGNMENT);
        index.push((tensor.name.as_str(), slot));
    }
    let index = serde_json::to_vec(&index).unwrap_or_default();
    let start = (index.len() + size_of::<u32>()).next_multiple_of(ALIGNMENT);
    let mut image = Vec::with_capacity(start + offset + size_of::<u64>());
    image.extend((index.len() as u32).to_le_bytes());
    image.extend(index);
    image.resize(start, 0);
    for tensor in tensors {
        match &tensor.numbers {
            Numbers::Floats(values) => image.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Numbers::Bytes(values) => image.extend(values.iter().map(|value| value.cast_unsigned())),
        }
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
    let index: Vec<(String, Slot)> = serde_json::from_slice(content.get(4..4 + length)?).ok()?;
    let place =
        |(name, slot): (String, Slot)| Some((name, Slot { offset: slot.offset.checked_add(start)?, ..slot }));
    let slots: HashMap<String, Slot> = index.into_iter().map(place).collect::<Option<_>>()?;
    let end = |slot: &Slot| slot.offset.checked_add(slot.bytes()?);
    let inside = |slot: &Slot| end(slot).is_some_and(|end| end <= content.len());
    slots.values().all(inside).then_some(Weights { bytes: content, slots })
}

/// Removes what earlier forms left beside a prepared file. Engines that have it mapped keep it.
fn forget(path: &Path) {
    let current = format!("prepared-{FORM}-");
    let entries = path.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("prepared-") && name.ends_with(".weights") && !name.starts_with(&current) {
            let _may_be_gone = std::fs::remove_file(entry.path());
        }
    }
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
        let tensor = |name: &str, numbers, size| Tensor { name: name.into(), dims: vec![size], numbers };
        let floats = |values: &[f32]| Numbers::Floats(values.to_vec());
        let bytes = tensor("c", Numbers::Bytes(vec![-1, 7, 9]), 3);
        let made = image(&[tensor("a", floats(&[1.0, 2.0]), 2), bytes, tensor("b", floats(&[3.0]), 1)]);
        let weights = parse(leak(made.clone())).unwrap();
        let slot = weights.slot("b", &[1]).unwrap();
        assert_eq!(slot.offset % ALIGNMENT, 0);
        assert_eq!(weights.bytes[slot.offset..slot.offset + 4], 3.0_f32.to_le_bytes());
        let slot = weights.slot("c", &[3]).unwrap();
        assert!(slot.is_bytes && slot.bytes() == Some(3));
        assert_eq!(weights.bytes[slot.offset..slot.offset + 3], [0xff, 7, 9]);
        assert!(weights.slot("b", &[2]).is_err() && weights.slot("d", &[1]).is_err());
        for place in [0, 5, made.len() / 2, made.len() - 1] {
            let mut changed = made.clone();
            changed[place] ^= 1;
            assert!(parse(leak(changed)).is_none(), "byte {place}");
        }
        assert!(parse(leak(made[..made.len() - 1].to_vec())).is_none());
    }
}
