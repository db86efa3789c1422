//! What can be armed: modes, triggers and lifetimes, as the switchboard's JSON has them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why an arming was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a JSON object of known fields; names the culprit.
    #[error("{0}")]
    Unreadable(#[from] serde_json::Error),
    /// A number beyond its range.
    #[error("{field} must be {range}")]
    OutOfRange {
        /// Its name in the JSON.
        field: &'static str,
        /// What would do.
        range: &'static str,
    },
    /// `clear` is neither a known word nor an object that says one thing.
    #[error(
        "clear must be \"process\", \"state_file\", \"never\", {{\"state_file\": true}} or {{\"after_s\": s}}"
    )]
    Clear,
    /// F23 without its poison.
    #[error("F23 needs trigger {{\"on_input_hash\": \"<xxh3-64 hex>\"}}")]
    NeedsHash,
    /// A mode that no inference triggers.
    #[error("{0} takes no trigger")]
    NoTrigger(&'static str),
}

/// A failure mode with its variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", deny_unknown_fields)]
pub enum Mode {
    /// Sticky CUDA error: every inference answers 500 at once.
    F1 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// Sticky `CUBLAS_STATUS_EXECUTION_FAILED`.
    F2 {},
    /// One-off server error without CUDA text.
    F3 {
        /// HTTP status.
        #[serde(default = "status_500")]
        status: u16,
    },
    /// As F1, hidden in a 422.
    F4 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// Ordinary validation errors.
    F5 {},
    /// Out of memory.
    F6 {
        /// Only audio longer than this, in seconds; 0 stands for one failure of any length.
        #[serde(default)]
        oom_above_s: f64,
        /// Every inference fails.
        #[serde(default)]
        sticky: bool,
    },
    /// Hung kernel: no answer, utilisation 100.
    F7 {},
    /// Host deadlock: no answer, utilisation 0.
    F8 {},
    /// One request never answers; others do.
    F9 {},
    /// Every endpoint stops answering for a while, then all complete.
    F10 {
        /// Length of the blockade.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// A short queue that is soon full.
    F11 {
        /// Jobs that may wait.
        #[serde(default = "limit_2")]
        limit: usize,
        /// HTTP status of the refusal.
        #[serde(default = "status_503")]
        status: u16,
    },
    /// The inference child process is dead behind a living parent.
    F12 {
        /// How that shows.
        #[serde(default)]
        variant: DeadChild,
    },
    /// Connections are refused, or reset in mid-body.
    F13 {
        /// Reset after this many bytes of the body, instead of refusing connections.
        #[serde(default)]
        rst_after_bytes: Option<u64>,
    },
    /// 200 with a worthless transcript.
    F14 {
        /// What it says.
        #[serde(default)]
        variant: BadTranscript,
    },
    /// 200 with worthless audio.
    F15 {
        /// How it sounds.
        #[serde(default)]
        variant: BadAudio,
    },
    /// Everything takes longer.
    F16 {
        /// How many times as long.
        #[serde(default = "factor_4")]
        factor: f64,
        /// The factor is reached after this many seconds.
        #[serde(default)]
        ramp_s: f64,
    },
    /// Memory grows with every inference, up to 512 MB.
    F17 {
        /// Megabytes held for each inference.
        #[serde(default = "megabytes_8")]
        mb_per_req: usize,
    },
    /// The model does not load.
    F18 {
        /// How it fails to.
        #[serde(default)]
        variant: BadLoad,
        /// Length of a slow load.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// As F1, and there again after a restart.
    F22 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// A poisonous input wedges the process, as F1.
    F23 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// The next start is slow.
    F27 {
        /// Length of the load.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// Two inferences at once wedge the process with a capture error.
    F31 {},
}

/// Text of a CUDA error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// `an illegal memory access was encountered`
    #[default]
    IllegalAccess,
    /// `device-side assert triggered`
    DeviceAssert,
    /// `unspecified launch failure`
    LaunchFailure,
    /// `misaligned address`
    MisalignedAddress,
    /// `operation not permitted when stream is capturing`
    Capture,
    /// `uncorrectable ECC error encountered`
    Ecc,
}

/// Variants of F12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadChild {
    /// 500.
    #[default]
    Error,
    /// No answer.
    Hang,
}

/// Variants of F14.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadTranscript {
    /// No words.
    #[default]
    Empty,
    /// Only punctuation.
    Punct,
    /// The same for any input.
    Constant,
    /// Empty texts at times that are no numbers.
    Nan,
}

/// Variants of F15.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadAudio {
    /// Zeros.
    #[default]
    Silence,
    /// White noise.
    Noise,
    /// The first tenth of a second.
    Short,
    /// A header that lies; in a raw stream, an odd byte at the start.
    BadHeader,
}

/// Variants of F18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLoad {
    /// Loads for ever.
    #[default]
    Never,
    /// Loads for `seconds`.
    Slow,
    /// Reports an error of the environment (class D).
    Fail,
}

/// When a mode sets in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// At once.
    Now,
    /// After this many more inferences.
    AfterN(u64),
    /// After this many seconds.
    AtS(f64),
    /// At an input of this hash.
    OnInputHash(InputHash),
    /// At each inference with this probability.
    P(f64),
}

/// xxh3-64 of an input, as hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InputHash(pub u64);

impl TryFrom<String> for InputHash {
    type Error = std::num::ParseIntError;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&hex, 16).map(Self)
    }
}

impl From<InputHash> for String {
    fn from(hash: InputHash) -> Self {
        format!("{:016x}", hash.0)
    }
}

/// What ends a fault; disarming always does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clear {
    /// The end of the process.
    Process,
    /// It is kept in the state file and survives process starts: this many, or all.
    StateFile {
        /// `None`: only disarming ends it.
        restarts: Option<u32>,
    },
    /// Seconds since arming.
    AfterS(f64),
}

/// One `POST /_engine/fault`.
#[derive(Debug, Clone, PartialEq)]
pub struct Arming {
    /// What happens.
    pub mode: Mode,
    /// When it sets in.
    pub trigger: Trigger,
    /// When it ends.
    pub clear: Clear,
}

impl Arming {
    /// Reads an arming and fills in what the mode defaults to.
    ///
    /// # Errors
    /// Names the field that is unknown, missing or out of range.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut fields: Map<String, Value> = serde_json::from_slice(body)?;
        let trigger = fields.remove("trigger").map(serde_json::from_value::<Trigger>).transpose()?;
        let clear = fields.remove("clear").map(parse_clear).transpose()?;
        let mode: Mode = serde_json::from_value(Value::Object(fields))?;
        let trigger = trigger.unwrap_or(match mode {
            Mode::F5 {} => Trigger::P(0.5),
            _ => Trigger::Now,
        });
        let clear = clear.unwrap_or(match mode {
            Mode::F18 { .. } | Mode::F22 { .. } | Mode::F23 { .. } => Clear::StateFile { restarts: None },
            Mode::F27 { .. } => Clear::StateFile { restarts: Some(1) },
            _ => Clear::Process,
        });
        let arming = Self { mode, trigger, clear };
        arming.check()?;
        Ok(arming)
    }

    /// The JSON that [`Arming::parse`] reads back.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(&self.mode).unwrap_or_default();
        json["trigger"] = serde_json::to_value(self.trigger).unwrap_or_default();
        json["clear"] = match self.clear {
            Clear::Process => "process".into(),
            Clear::StateFile { restarts: None } => "never".into(),
            Clear::StateFile { restarts } => serde_json::json!({"state_file": true, "restarts": restarts}),
            Clear::AfterS(seconds) => serde_json::json!({ "after_s": seconds }),
        };
        json
    }

    fn check(&self) -> Result<(), Error> {
        let within = |field, value: f64, low: f64, high: f64, range| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(Error::OutOfRange { field, range }) }
        };
        let seconds = |field, value| within(field, value, 0.0, 86_400.0, "0 to 86400 seconds");
        match self.trigger {
            Trigger::P(p) => within("p", p, 0.0, 1.0, "0 to 1")?,
            Trigger::AtS(at) => seconds("at_s", at)?,
            Trigger::Now | Trigger::AfterN(_) | Trigger::OnInputHash(_) => {}
        }
        if let Clear::AfterS(after) = self.clear {
            seconds("after_s", after)?;
        }
        let untriggered =
            |name| if self.trigger == Trigger::Now { Ok(()) } else { Err(Error::NoTrigger(name)) };
        match self.mode {
            Mode::F3 { status } | Mode::F11 { status, .. } => {
                within("status", status.into(), 400.0, 599.0, "400 to 599")
            }
            Mode::F6 { oom_above_s, .. } => seconds("oom_above_s", oom_above_s),
            Mode::F10 { seconds: length } => seconds("seconds", length),
            Mode::F16 { factor, ramp_s } => {
                within("factor", factor, 1.0, 1000.0, "1 to 1000")?;
                seconds("ramp_s", ramp_s)
            }
            Mode::F18 { seconds: length, .. } => {
                untriggered("F18")?;
                seconds("seconds", length)
            }
            Mode::F23 { .. } if !matches!(self.trigger, Trigger::OnInputHash(_)) => Err(Error::NeedsHash),
            Mode::F27 { seconds: length } => {
                untriggered("F27")?;
                seconds("seconds", length)
            }
            Mode::F31 {} => untriggered("F31"),
            _ => Ok(()),
        }
    }
}

fn parse_clear(value: Value) -> Result<Clear, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        state_file: Option<bool>,
        restarts: Option<u32>,
        after_s: Option<f64>,
    }
    match value.as_str() {
        Some("process") => return Ok(Clear::Process),
        Some("state_file" | "never") => return Ok(Clear::StateFile { restarts: None }),
        Some(_) => return Err(Error::Clear),
        None => {}
    }
    match serde_json::from_value(value)? {
        Fields { state_file: Some(true), restarts, after_s: None } => Ok(Clear::StateFile { restarts }),
        Fields { state_file: None, restarts: None, after_s: Some(seconds) } => Ok(Clear::AfterS(seconds)),
        _ => Err(Error::Clear),
    }
}

fn status_500() -> u16 {
    500
}

fn status_503() -> u16 {
    503
}

fn seconds_20() -> f64 {
    20.0
}

fn limit_2() -> usize {
    2
}

fn factor_4() -> f64 {
    4.0
}

fn megabytes_8() -> usize {
    8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Arming, String> {
        Arming::parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_row_can_be_armed_by_its_id_and_reads_back() {
        for id in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 22, 27, 31] {
            let arming = parse(&format!(r#"{{"mode":"F{id}"}}"#)).unwrap();
            assert_eq!(Arming::parse(arming.to_json().to_string().as_bytes()).unwrap(), arming, "F{id}");
        }
    }

    #[test]
    fn triggers_and_lifetimes_are_read() {
        let arming =
            parse(r#"{"mode":"F23","trigger":{"on_input_hash":"00000000000000ff"},"clear":"never"}"#)
                .unwrap();
        assert_eq!(arming.trigger, Trigger::OnInputHash(InputHash(255)));
        assert_eq!(arming.clear, Clear::StateFile { restarts: None });
        let arming =
            parse(r#"{"mode":"F1","trigger":{"after_n":3},"clear":{"state_file":true,"restarts":2}}"#);
        assert_eq!(arming.unwrap().clear, Clear::StateFile { restarts: Some(2) });
        assert_eq!(parse(r#"{"mode":"F7","clear":{"after_s":5}}"#).unwrap().clear, Clear::AfterS(5.0));
        assert_eq!(parse(r#"{"mode":"F3"}"#).unwrap().trigger, Trigger::Now);
    }

    #[test]
    fn refusals_name_the_culprit() {
        for (json, culprit) in [
            (r#"{"mode":"F1","signatur":"ecc"}"#, "signatur"),
            (r#"{"mode":"F2","x":1}"#, "x"),
            (r#"{"mode":"F99"}"#, "F99"),
            (r#"{"trigger":"now"}"#, "mode"),
            (r#"{"mode":"F1","trigger":{"sometimes":1}}"#, "sometimes"),
            (r#"{"mode":"F1","trigger":{"p":2}}"#, "p must"),
            (r#"{"mode":"F1","clear":{"after":2}}"#, "after"),
            (r#"{"mode":"F1","clear":"later"}"#, "clear"),
            (r#"{"mode":"F23"}"#, "on_input_hash"),
            (r#"{"mode":"F31","trigger":{"after_n":1}}"#, "F31"),
            (r#"{"mode":"F3","status":200}"#, "status"),
            ("[]", "map"),
            ("", "EOF"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(culprit), "{json}: {error}");
        }
    }
}
