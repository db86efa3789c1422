//! Classes of engine faults.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The class of a fault, by what cures it.
///
/// What each class looks like and what cures it: `docs/faults.md`, which `make rules` compares with these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// CUDA context dead: every later call fails until the process is replaced.
    #[serde(rename = "A")]
    Sticky,
    /// Stream capture poisoned; behaves like [`Class::Sticky`].
    #[serde(rename = "A'")]
    Capture,
    /// Uncorrectable memory error or device lost; may outlive the process.
    #[serde(rename = "A''")]
    DeviceLost,
    /// A library status that may or may not be sticky: a probe decides.
    #[serde(rename = "B")]
    Ambiguous,
    /// Out of GPU memory; the context survives.
    #[serde(rename = "C")]
    Memory,
    /// Driver or image does not fit: a restart cannot help.
    #[serde(rename = "D")]
    Environment,
    /// Connection refused or reset.
    #[serde(rename = "R")]
    Refused,
    /// An answer arrived and its content is wrong.
    #[serde(rename = "Q")]
    Quality,
    /// No answer and no progress within the predicted time.
    #[serde(rename = "H")]
    Hang,
    /// Probes of an idle engine fail though no request showed anything.
    #[serde(rename = "P")]
    Periodic,
    /// Service has become slow for the work it does.
    #[serde(rename = "T")]
    Trend,
    /// The driver reported an error of the GPU (Xid): a hint, probes decide.
    #[serde(rename = "X")]
    Xid,
}

impl Class {
    /// All classes, for metrics that must exist before the first event.
    pub const ALL: [Class; 12] = [
        Class::Sticky,
        Class::Capture,
        Class::DeviceLost,
        Class::Ambiguous,
        Class::Memory,
        Class::Environment,
        Class::Refused,
        Class::Quality,
        Class::Hang,
        Class::Periodic,
        Class::Trend,
        Class::Xid,
    ];

    /// The short name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Sticky => "A",
            Class::Capture => "A'",
            Class::DeviceLost => "A''",
            Class::Ambiguous => "B",
            Class::Memory => "C",
            Class::Environment => "D",
            Class::Refused => "R",
            Class::Quality => "Q",
            Class::Hang => "H",
            Class::Periodic => "P",
            Class::Trend => "T",
            Class::Xid => "X",
        }
    }

    /// The class of that short name.
    pub fn parse(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// Whether the process is known to be beyond saving (the A family).
    pub fn is_sticky(self) -> bool {
        matches!(self, Class::Sticky | Class::Capture | Class::DeviceLost)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Reads an optional class; one that only a newer version knows is none.
///
/// # Errors
/// When the value is neither a string nor null.
pub fn lenient<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Class>, D::Error> {
    Ok(Option::<String>::deserialize(value)?.and_then(|name| Class::parse(&name)))
}
