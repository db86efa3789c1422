//! What is armed when, and until when: a mode with its trigger and lifetime, read and checked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::mode::Mode;

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
    /// F38 on an engine that runs one job at a time.
    #[error("F38 needs an engine with --jobs above 1")]
    NeedsJobs,
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
            Mode::F18 { .. } | Mode::F22 { .. } | Mode::F23 { .. } | Mode::F32 { .. } | Mode::F33 { .. } => {
                Clear::StateFile { restarts: None }
            }
            Mode::F27 { .. } => Clear::StateFile { restarts: Some(1) },
            _ => Clear::Process,
        });
        let arming = Self { mode, trigger, clear };
        arming.check()?;
        Ok(arming)
    }

    /// Checks that an engine that runs so many `jobs` at a time can play it.
    ///
    /// # Errors
    /// Says what the engine would need.
    pub fn suits(&self, jobs: usize) -> Result<(), Error> {
        if self.mode == (Mode::F38 {}) && jobs < 2 { Err(Error::NeedsJobs) } else { Ok(()) }
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
        let status = |value: u16, allowed: &[u16], range| {
            if allowed.contains(&value) { Ok(()) } else { Err(Error::OutOfRange { field: "status", range }) }
        };
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
            Mode::F32 { seconds: length } => {
                untriggered("F32")?;
                seconds("seconds", length)
            }
            Mode::F33 { seconds: length, status: refusal } => {
                untriggered("F33")?;
                seconds("seconds", length)?;
                status(refusal, &[429, 503], "429 or 503")
            }
            Mode::F34 { seconds: length } => seconds("seconds", length),
            Mode::F35 { status: error } => status(error, &[400, 404, 422], "400, 404 or 422"),
            Mode::F39 { code, ref message, .. } => {
                within("code", code.into(), 1.0, 16.0, "1 to 16")?;
                let length = message.as_ref().map_or(1, String::len);
                within("message", length as f64, 1.0, 1024.0, "1 to 1024 bytes long")
            }
            Mode::F41 { delay_s } => seconds("delay_s", delay_s),
            Mode::F42 { status: error } => status(error, &[400, 422, 500], "400, 422 or 500"),
            Mode::F45 { .. } => untriggered("F45"),
            Mode::F1 { .. }
            | Mode::F2 {}
            | Mode::F4 { .. }
            | Mode::F5 {}
            | Mode::F7 {}
            | Mode::F8 {}
            | Mode::F9 {}
            | Mode::F12 { .. }
            | Mode::F13 { .. }
            | Mode::F14 { .. }
            | Mode::F15 { .. }
            | Mode::F17 { .. }
            | Mode::F22 { .. }
            | Mode::F23 { .. }
            | Mode::F38 {}
            | Mode::F40 { .. }
            | Mode::F43 { .. } => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Arming, String> {
        Arming::parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_row_can_be_armed_by_its_id_and_reads_back() {
        let later = [31, 32, 33, 34, 35, 38, 39, 40, 41, 42, 43, 45];
        for id in (1..=18).chain([22, 27]).chain(later) {
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
    fn modes_of_the_start_stay_in_the_state_file_and_the_others_end_with_the_process() {
        for (json, clear) in [
            (r#"{"mode":"F32"}"#, Clear::StateFile { restarts: None }),
            (r#"{"mode":"F33","clear":"process"}"#, Clear::Process),
            (r#"{"mode":"F33"}"#, Clear::StateFile { restarts: None }),
            (r#"{"mode":"F41"}"#, Clear::Process),
            (r#"{"mode":"F45"}"#, Clear::Process),
        ] {
            assert_eq!(parse(json).unwrap().clear, clear, "{json}");
        }
    }

    #[test]
    fn one_job_of_several_cannot_be_stuck_where_one_runs_at_a_time() {
        let arming = parse(r#"{"mode":"F38"}"#).unwrap();
        assert!(arming.suits(1).unwrap_err().to_string().contains("--jobs"));
        assert!(arming.suits(2).is_ok() && parse(r#"{"mode":"F9"}"#).unwrap().suits(1).is_ok());
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
            (r#"{"mode":"F32","trigger":{"after_n":1}}"#, "F32"),
            (r#"{"mode":"F32","seconds":-1}"#, "seconds must"),
            (r#"{"mode":"F33","trigger":{"p":0.5}}"#, "F33"),
            (r#"{"mode":"F33","status":500}"#, "429 or 503"),
            (r#"{"mode":"F34","seconds":1e6}"#, "seconds must"),
            (r#"{"mode":"F35","status":500}"#, "400, 404 or 422"),
            (r#"{"mode":"F38","after":1}"#, "after"),
            (r#"{"mode":"F39","code":0}"#, "code must"),
            (r#"{"mode":"F39","code":17}"#, "code must"),
            (r#"{"mode":"F39","message":""}"#, "message must"),
            (r#"{"mode":"F40","after_messages":-1}"#, "-1"),
            (r#"{"mode":"F41","delay_s":-1}"#, "delay_s must"),
            (r#"{"mode":"F42","status":404}"#, "400, 422 or 500"),
            (r#"{"mode":"F43","variant":"min"}"#, "min"),
            (r#"{"mode":"F45","trigger":{"at_s":1}}"#, "F45"),
            ("[]", "map"),
            ("", "EOF"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(culprit), "{json}: {error}");
        }
    }
}
