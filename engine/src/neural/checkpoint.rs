//! Reads the tensors of a PyTorch checkpoint: a zip archive with a pickle, of which only the names of tensors, their shapes
//! and places are taken. Nothing that the pickle names is looked up or run.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::rc::Rc;

use zip::ZipArchive;

use super::Error;

/// Bounds of what is read.
const MAX_PICKLE_BYTES: u64 = 4 << 20;
const MAX_OPERATIONS: usize = 1_000_000;
const MAX_TENSOR_BYTES: u64 = 256 << 20;

/// A tensor of floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its numbers, in rows.
    pub values: Vec<f32>,
}

/// The tensors of a checkpoint by their names.
pub struct Checkpoint {
    file: &'static str,
    tensors: HashMap<String, Tensor>,
}

/// What the pickle says of a tensor.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    storage: String,
    offset: usize,
    dims: Vec<usize>,
}

/// A value on the pickle's stack; what is of no use for tensors is `Other`.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Mark,
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<[Item]>),
    /// A function or class, by module and name.
    Global(Rc<str>),
    /// A storage of floats, by its key.
    Storage(Rc<str>),
    Tensor(Rc<Place>),
    Other,
}

impl Checkpoint {
    /// Reads a checkpoint; tensors that are not of floats are left out.
    ///
    /// # Errors
    /// [`Error::Format`] when it is malformed.
    pub fn read(file: &'static str, bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |reason| Error::Format { file, reason };
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| refuse("not a zip archive"))?;
        let mut part = |name: &str, limit: u64| -> Result<Vec<u8>, Error> {
            let entry = archive.by_name(name).map_err(|_| refuse("a part is missing"))?;
            if entry.size() > limit {
                return Err(refuse("a part is too large"));
            }
            let mut content = Vec::new();
            entry.take(limit).read_to_end(&mut content).map_err(|_| refuse("a part cannot be read"))?;
            Ok(content)
        };
        let pickle = part("archive/data.pkl", MAX_PICKLE_BYTES)?;
        let places = Machine::new(&pickle).run().ok_or_else(|| refuse("not a pickle of tensors"))?;
        let mut tensors = HashMap::new();
        for (name, place) in places {
            let data = part(&format!("archive/data/{}", place.storage), MAX_TENSOR_BYTES)?;
            let count = place.dims.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
            let end = count.and_then(|count| count.checked_add(place.offset)?.checked_mul(4));
            let data = end.and_then(|end| data.get(place.offset * 4..end));
            let data = data.ok_or_else(|| refuse("a tensor is cut short"))?;
            let values: Vec<f32> =
                data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(refuse("a tensor is not finite"));
            }
            tensors.insert(name, Tensor { dims: place.dims.clone(), values });
        }
        Ok(Self { file, tensors })
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::Format`] when there is none, or not of these dimensions.
    pub fn tensor(&self, name: &str, dims: &[usize]) -> Result<&Tensor, Error> {
        let found = self.tensors.get(name).filter(|tensor| tensor.dims == dims);
        found.ok_or(Error::Format { file: self.file, reason: "a tensor is missing or of another shape" })
    }
}

/// The pickle's machine, as far as checkpoints need it.
struct Machine<'a> {
    input: Cursor<&'a [u8]>,
    stack: Vec<Item>,
    memo: HashMap<u32, Item>,
    found: Vec<(String, Rc<Place>)>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self { input: Cursor::new(pickle), stack: Vec::new(), memo: HashMap::new(), found: Vec::new() }
    }

    /// The named tensors; `None` when the pickle is malformed.
    fn run(mut self) -> Option<Vec<(String, Rc<Place>)>> {
        for _ in 0..MAX_OPERATIONS {
            let [operation] = self.bytes()?;
            match operation {
                b'.' => return Some(self.found),
                0x80 => drop(self.bytes::<1>()?),
                b'(' => self.stack.push(Item::Mark),
                b'}' | b']' | b'N' | 0x88 | 0x89 => self.stack.push(Item::Other),
                b')' => self.stack.push(Item::Tuple(Rc::new([]))),
                b'K' => {
                    let [value] = self.bytes()?;
                    self.stack.push(Item::Int(i64::from(value)));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.bytes()?);
                    self.stack.push(Item::Int(i64::from(value)));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.bytes()?);
                    self.stack.push(Item::Int(i64::from(value)));
                }
                b'G' => {
                    self.bytes::<8>()?;
                    self.stack.push(Item::Other);
                }
                b'X' => {
                    let text = self.text()?;
                    self.stack.push(Item::Text(text.into()));
                }
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.stack.push(Item::Global(name.into()));
                }
                b'q' => {
                    let [key] = self.bytes()?;
                    self.memo.insert(u32::from(key), self.stack.last()?.clone());
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.bytes()?);
                    self.memo.insert(key, self.stack.last()?.clone());
                }
                b'h' => {
                    let [key] = self.bytes()?;
                    self.stack.push(self.memo.get(&u32::from(key))?.clone());
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.bytes()?);
                    self.stack.push(self.memo.get(&key)?.clone());
                }
                b't' => {
                    let items = self.marked()?;
                    self.stack.push(Item::Tuple(items.into()));
                }
                0x85..=0x87 => {
                    let count = usize::from(operation - 0x84);
                    let items = self.stack.split_off(self.stack.len().checked_sub(count)?);
                    self.stack.push(Item::Tuple(items.into()));
                }
                b'Q' => {
                    let id = self.stack.pop()?;
                    self.stack.push(storage(&id));
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.stack.pop()?, self.stack.pop()?);
                    self.stack.push(built(&function, &arguments));
                }
                b'b' => drop(self.stack.pop()?),
                b's' => {
                    let (value, key) = (self.stack.pop()?, self.stack.pop()?);
                    self.keep(&key, &value);
                }
                b'u' => {
                    for pair in self.marked()?.as_chunks::<2>().0 {
                        self.keep(&pair[0], &pair[1]);
                    }
                }
                b'e' => drop(self.marked()?),
                _ => return None,
            }
        }
        None
    }

    fn keep(&mut self, key: &Item, value: &Item) {
        if let (Item::Text(name), Item::Tensor(place)) = (key, value) {
            self.found.push((name.to_string(), place.clone()));
        }
    }

    /// What was put on the stack since the last mark.
    fn marked(&mut self) -> Option<Vec<Item>> {
        let mark = self.stack.iter().rposition(|item| *item == Item::Mark)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Some(items)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = u32::from_le_bytes(self.bytes()?) as usize;
        let start = self.input.position() as usize;
        let bytes = self.input.get_ref().get(start..start.checked_add(length)?)?;
        self.input.set_position((start + length) as u64);
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn line(&mut self) -> Option<String> {
        let start = self.input.position() as usize;
        let rest = self.input.get_ref().get(start..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        self.input.set_position((start + length + 1) as u64);
        String::from_utf8(rest[..length].to_vec()).ok()
    }
}

/// A storage of floats by its persistent id: `("storage", class, key, device, count)`.
fn storage(id: &Item) -> Item {
    let Item::Tuple(parts) = id else { return Item::Other };
    match &parts[..] {
        [_, Item::Global(class), Item::Text(key), ..] if &**class == "torch FloatStorage" => {
            Item::Storage(key.clone())
        }
        _ => Item::Other,
    }
}

/// A tensor, if that is what a call makes: of `(storage, offset, sizes, strides, …)`, laid out in rows.
fn built(function: &Item, arguments: &Item) -> Item {
    let rebuilt = matches!(function, Item::Global(name) if &**name == "torch._utils _rebuild_tensor_v2");
    let Item::Tuple(arguments) = arguments else { return Item::Other };
    let [Item::Storage(key), Item::Int(offset), Item::Tuple(sizes), Item::Tuple(strides), ..] =
        &arguments[..]
    else {
        return Item::Other;
    };
    let numbers = |items: &[Item]| {
        let number = |item: &Item| match item {
            Item::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        };
        items.iter().map(number).collect::<Option<Vec<usize>>>()
    };
    let (Some(dims), Some(strides), Ok(offset)) =
        (numbers(sizes), numbers(strides), usize::try_from(*offset))
    else {
        return Item::Other;
    };
    let mut step = 1_usize;
    let in_rows = dims.iter().zip(&strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == step;
        step = step.saturating_mul(*size);
        fits
    });
    if !rebuilt || !in_rows || dims.len() != strides.len() {
        return Item::Other;
    }
    Item::Tensor(Rc::new(Place { storage: key.to_string(), offset, dims }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// `{"w": tensor of shape [2]}` as PyTorch writes it.
    fn pickle() -> Vec<u8> {
        let mut pickle = vec![0x80, 2, b'}', b'('];
        let text = |pickle: &mut Vec<u8>, text: &str| {
            pickle.push(b'X');
            pickle.extend((text.len() as u32).to_le_bytes());
            pickle.extend(text.as_bytes());
        };
        text(&mut pickle, "w");
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, "0");
        text(&mut pickle, "cpu");
        pickle.extend(b"K\x02tQK\x00K\x02\x85K\x01\x85\x89)tRu.");
        pickle
    }

    fn archive(pickle: &[u8], data: &[u8]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", data)] {
            writer
                .start_file(
                    name,
                    SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
                )
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn tensors_are_read_by_name() {
        let data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let read = Checkpoint::read("test", &archive(&pickle(), &data)).unwrap();
        assert_eq!(read.tensor("w", &[2]).unwrap().values, [1.5, -2.0]);
        assert!(read.tensor("w", &[1]).is_err() && read.tensor("v", &[2]).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Checkpoint::read("test", b"no archive").is_err());
        assert!(Checkpoint::read("test", &archive(&pickle(), &[0; 4])).is_err(), "cut short");
        assert!(Checkpoint::read("test", &archive(&pickle(), &[255; 8])).is_err(), "not finite");
        let whole = pickle();
        for end in 0..whole.len() {
            assert!(Machine::new(&whole[..end]).run().is_none(), "{end} bytes");
        }
        assert!(Machine::new(b"i").run().is_none() && Machine::new(b"tR.").run().is_none());
    }
}
