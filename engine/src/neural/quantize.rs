//! Weights in 8 bits: which of them, and how.

use std::fmt;

use clap::ValueEnum;

use super::ctranslate2::Variable;
use super::weights::{Numbers, Tensor};

/// Which matrices of Whisper have weights of 8 bits, a quarter of the memory. What is multiplied with them is rounded to 8 bits as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// All of them: a third less work, and more words wrong.
    #[value(name = "8")]
    Eight,
    /// Those of the decoder's layers, where no loss was measured.
    Mixed,
    /// None: as exact as the published weights.
    #[value(name = "32")]
    Single,
}

impl Precision {
    /// What this processor does best: mixed where it adds the products of bytes at once and without saturation.
    #[must_use]
    pub fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        let exact = is_x86_feature_detected!("avx512vnni");
        #[cfg(target_arch = "aarch64")]
        let exact = std::arch::is_aarch64_feature_detected!("dotprod");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let exact = false;
        if exact { Self::Mixed } else { Self::Single }
    }

    /// Whether a variable is kept in 8 bits.
    #[must_use]
    pub fn rounds(self, name: &str) -> bool {
        let is_matrix = name.contains("/linear_") && name.ends_with("/weight");
        match self {
            Self::Eight => is_matrix || name == "decoder/embeddings/weight",
            Self::Mixed => is_matrix && name.starts_with("decoder/"),
            Self::Single => false,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eight => "8",
            Self::Mixed => "mixed",
            Self::Single => "32",
        })
    }
}

/// The name of the scales of a matrix in 8 bits.
#[must_use]
pub fn scales(name: &str) -> String {
    format!("{name}/scale")
}

/// A matrix `[to, from]` as `[from, to]` in 8 bits, and the scale of each column.
pub fn columns(variable: &Variable) -> [Tensor; 2] {
    let (to, from) = match variable.dims[..] {
        [to, from] => (to, from),
        _ => (1, variable.values.len()),
    };
    let mut bytes = vec![0; variable.values.len()];
    let mut all = Vec::with_capacity(to);
    for (column, row) in variable.values.chunks_exact(from.max(1)).enumerate() {
        let largest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = if largest > 0.0 { largest / f32::from(i8::MAX) } else { 1.0 };
        for (place, value) in row.iter().enumerate() {
            bytes[place * to + column] = (value / scale).round() as i8;
        }
        all.push(scale);
    }
    [
        Tensor { name: scales(&variable.name), dims: vec![to], numbers: Numbers::Floats(all) },
        Tensor { name: variable.name.clone(), dims: vec![from, to], numbers: Numbers::Bytes(bytes) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_comes_back_within_half_a_step() {
        let values = vec![1.0, -0.5, 0.25, 0.0, 0.0, 0.0, 100.0, 3.0, -127.0];
        let variable = Variable { name: "m".into(), dims: vec![3, 3], values: values.clone() };
        let [scale, matrix] = columns(&variable);
        let (Numbers::Floats(scale), Numbers::Bytes(bytes)) = (scale.numbers, matrix.numbers) else {
            panic!("of other numbers")
        };
        for (index, value) in values.iter().enumerate() {
            let (row, column) = (index % 3, index / 3);
            let back = f32::from(bytes[row * 3 + column]) * scale[column];
            assert!((back - value).abs() <= scale[column] / 2.0, "{index}: {back} for {value}");
        }
    }
}
