//! Reads the weights of Whisper in the format of CTranslate2, version 6: little-endian, one variable after another.

use std::io::{Cursor, Read};

use super::Error;

/// The name for errors.
const FILE: &str = "whisper-base/model.bin";
/// More variables, dimensions or letters of a name than this are refused.
const MAX_VARIABLES: u32 = 4_096;
const MAX_RANK: u8 = 4;
const MAX_NAME: u16 = 256;

/// A tensor of floats of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Such as `encoder/conv1/weight`.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its numbers, in rows.
    pub values: Vec<f32>,
}

/// All tensors of floats of a file; flags, which are whole numbers, are left out.
///
/// # Errors
/// [`Error::Format`] when the file is of another version, cut short, or says of itself what cannot be.
pub fn variables(file: &[u8]) -> Result<Vec<Variable>, Error> {
    let mut reader = Reader(Cursor::new(file));
    if reader.u32()? != 6 {
        return Err(refuse("not version 6"));
    }
    if reader.name()? != "WhisperSpec" {
        return Err(refuse("not a Whisper model"));
    }
    let _revision = reader.u32()?;
    let count = reader.u32()?;
    if count > MAX_VARIABLES {
        return Err(refuse("too many variables"));
    }
    let mut variables = Vec::new();
    for _ in 0..count {
        let name = reader.name()?;
        let rank = reader.u8()?;
        if rank > MAX_RANK {
            return Err(refuse("too many dimensions"));
        }
        let dims: Vec<usize> =
            (0..rank).map(|_| reader.u32().map(|size| size as usize)).collect::<Result<_, _>>()?;
        let kind = reader.u8()?;
        let length = reader.u32()? as usize;
        let bytes = reader.slice(length)?;
        let numbers = dims.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
        let values: Vec<f32> = match kind {
            0 => bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
            4 => bytes.as_chunks::<2>().0.iter().map(|two| half(u16::from_le_bytes(*two))).collect(),
            _ => continue,
        };
        if numbers != Some(values.len()) || values.iter().any(|value| !value.is_finite()) {
            return Err(refuse("a tensor is not of the size of its dimensions, or not finite"));
        }
        variables.push(Variable { name, dims, values });
    }
    Ok(variables)
}

/// A half-precision number as IEEE 754 has it.
pub fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1_024.0) * 2.0_f32.powi(exponent - 15),
    }
}

fn refuse(reason: &'static str) -> Error {
    Error::Format { file: FILE, reason }
}

struct Reader<'a>(Cursor<&'a [u8]>);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).map_err(|_| refuse("cut short"))?;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let start = self.0.position() as usize;
        let end = start.checked_add(length).ok_or_else(|| refuse("cut short"))?;
        let bytes = self.0.get_ref().get(start..end).ok_or_else(|| refuse("cut short"))?;
        self.0.set_position(end as u64);
        Ok(bytes)
    }

    /// A text with its length before it and a zero at its end.
    fn name(&mut self) -> Result<String, Error> {
        let length = u16::from_le_bytes(self.array()?);
        if length > MAX_NAME {
            return Err(refuse("a name is too long"));
        }
        let text = std::str::from_utf8(self.slice(usize::from(length))?);
        Ok(text.map_err(|_| refuse("a name is no text"))?.trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Vec<u8> {
        let mut bytes = (text.len() as u16 + 1).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        bytes
    }

    fn file(dims: &[u32], kind: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = 6_u32.to_le_bytes().to_vec();
        bytes.extend(name("WhisperSpec"));
        bytes.extend([3, 0, 0, 0, 1, 0, 0, 0]);
        bytes.extend(name("a/weight"));
        bytes.push(dims.len() as u8);
        dims.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.push(kind);
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn halves_and_floats_are_read() {
        let read = variables(&file(&[2], 4, &[0x00, 0x3c, 0x00, 0xc0])).unwrap();
        assert_eq!((read[0].name.as_str(), &read[0].values), ("a/weight", &vec![1.0, -2.0]));
        assert_eq!(variables(&file(&[], 0, &0.5_f32.to_le_bytes())).unwrap()[0].values, [0.5]);
        assert_eq!(half(0x0001), 2.0_f32.powi(-24));
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = file(&[2], 4, &[0, 0, 0, 0]);
        for end in 0..good.len() {
            assert!(variables(&good[..end]).is_err(), "{end} bytes");
        }
        assert!(variables(&file(&[3], 4, &[0, 0, 0, 0])).is_err());
        assert!(variables(&file(&[u32::MAX, u32::MAX, u32::MAX], 4, &[0, 0])).is_err());
        assert!(variables(&file(&[1], 4, &[0x00, 0x7c])).is_err(), "not finite");
    }
}
