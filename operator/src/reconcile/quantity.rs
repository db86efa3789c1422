//! Kubernetes quantities as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes and what they multiply by.
const UNITS: [(&str, f64); 14] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

/// The quantity in units, such as bytes, rounded up; `None` when it is not a quantity.
#[must_use]
pub fn units(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let (_, number, factor) = UNITS.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some((unit, number, factor))
    })?;
    let value = (number * factor).ceil();
    // The comparison refuses NaN and infinity too.
    (0.0..=1.8e19).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        let of = |text: &str| units(&Quantity(text.into()));
        assert_eq!(of("8Gi"), Some(8 << 30));
        assert_eq!(of("0"), Some(0));
        assert_eq!(of("1.5k"), Some(1500));
        assert_eq!(of("100m"), Some(1));
        assert_eq!(of("1e3"), Some(1000));
        for bad in ["", "Gi", "-1", "8GB", "much", "inf", "NaN"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
