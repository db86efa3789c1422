//! When an utterance begins and ends, as Riva's clients set it, for the segments of a session.
//!
//! Riva looks at a window of frames, `history`, and at the share of them, `threshold`, that must be speech or silence. Zero and less
//! stand for "not set", as clients send them.

use crate::error::Error;
use crate::riva_proto::asr::EndpointingConfig;
use crate::stream::{Rules, samples};

/// Silence that ends an utterance when nothing is set, milliseconds.
const STOP_HISTORY: u64 = 800;
/// Windows that are taken, milliseconds.
const HISTORY: std::ops::RangeInclusive<i32> = 1..=30_000;
/// Share of speech in the window at the start when only the window is set.
const START_THRESHOLD: f32 = 0.2;
/// Least speech that begins an utterance, and least silence that ends one, milliseconds.
const LEAST_START: u64 = 16;
const LEAST_STOP: u64 = 100;

/// The rules of a session.
///
/// # Errors
/// A refusal that names the field.
pub(super) fn rules(config: Option<&EndpointingConfig>) -> Result<Rules, Error> {
    let mut rules = Rules { silence: samples(STOP_HISTORY), ..Rules::default() };
    let Some(config) = config else { return Ok(rules) };
    let start = history("start_history", config.start_history)?;
    let stop = history("stop_history", config.stop_history)?;
    let early = history("stop_history_eou", config.stop_history_eou)?;
    let threshold = threshold("start_threshold", config.start_threshold)?;
    self::threshold("stop_threshold", config.stop_threshold)?;
    self::threshold("stop_threshold_eou", config.stop_threshold_eou)?;
    if let Some(window) = start {
        let share = f64::from(threshold.unwrap_or(START_THRESHOLD));
        rules.start = samples(((window as f64 * share) as u64).max(LEAST_START));
    }
    // An early end is an end: what follows is another utterance.
    if let Some(window) = early.into_iter().chain(stop).min() {
        rules.silence = samples(window.max(LEAST_STOP));
    }
    Ok(rules)
}

fn history(name: &'static str, value: Option<i32>) -> Result<Option<u64>, Error> {
    match value {
        None | Some(..=0) => Ok(None),
        Some(value) if HISTORY.contains(&value) => Ok(u64::try_from(value).ok()),
        Some(value) => {
            Err(Error::param(name, format!("{name} must be from 1 to 30000 milliseconds, not {value}")))
        }
    }
}

fn threshold(name: &'static str, value: Option<f32>) -> Result<Option<f32>, Error> {
    match value {
        None => Ok(None),
        Some(value) if value <= 0.0 => Ok(None),
        Some(value) if value <= 1.0 => Ok(Some(value)),
        Some(_) => Err(Error::param(name, format!("{name} must be from 0 to 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_shares_become_rules() {
        let rules = |config: &EndpointingConfig| super::rules(Some(config)).unwrap();
        let unset = EndpointingConfig {
            start_history: Some(-1),
            start_threshold: Some(-1.0),
            stop_history: Some(0),
            stop_threshold: Some(-1.0),
            stop_history_eou: Some(-1),
            stop_threshold_eou: Some(0.0),
        };
        assert_eq!(rules(&unset), super::rules(None).unwrap());
        assert_eq!(rules(&unset).silence, samples(800));
        let set = EndpointingConfig {
            start_history: Some(200),
            start_threshold: Some(0.5),
            stop_history: Some(1200),
            ..EndpointingConfig::default()
        };
        assert_eq!((rules(&set).start, rules(&set).silence), (samples(100), samples(1200)));
        let early = EndpointingConfig { stop_history_eou: Some(300), ..set };
        assert_eq!(rules(&early).silence, samples(300));
        let short = EndpointingConfig { start_history: Some(1), stop_history: Some(1), ..unset };
        assert_eq!((rules(&short).start, rules(&short).silence), (samples(16), samples(100)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let blamed = |config: EndpointingConfig| super::rules(Some(&config)).unwrap_err().param_name();
        let long = EndpointingConfig { stop_history: Some(30_001), ..EndpointingConfig::default() };
        assert_eq!(blamed(long), Some("stop_history"));
        for wrong in [1.1, f32::NAN, f32::INFINITY] {
            let config = EndpointingConfig { stop_threshold: Some(wrong), ..EndpointingConfig::default() };
            assert_eq!(blamed(config), Some("stop_threshold"), "{wrong}");
        }
    }
}
