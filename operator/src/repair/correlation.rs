//! Whether replicas of an engine fail together: pure.

use std::time::Duration;

use jiff::Timestamp;

use super::budget::age;
use super::view::EngineView;

/// Replicas that fail within this time of each other fail together.
pub const WINDOW: Duration = Duration::from_secs(60);
/// One replica alone has nothing to be correlated with.
const LEAST: usize = 2;

/// Whether as many replicas as the threshold says, in percent, ail now and began to within one window.
#[must_use]
pub fn is_correlated(engine: &EngineView, threshold_percent: u32) -> bool {
    let mut since: Vec<Timestamp> = engine.pods.iter().filter_map(|pod| pod.ailing()).collect();
    since.sort_unstable();
    let percent = usize::try_from(threshold_percent).unwrap_or(usize::MAX).min(100);
    let threshold = (engine.desired.max(engine.pods.len()) * percent).div_ceil(100).max(LEAST);
    since.windows(threshold).any(|group| match group {
        [first, .., last] => age(*first, *last) <= WINDOW,
        _ => false,
    })
}
