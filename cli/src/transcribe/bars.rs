//! Progress of files on stderr.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::job::Job;

/// Steps of a bar.
const STEPS: u64 = 1_000;

/// The bars of all files. Where stderr is no terminal nothing is drawn.
pub struct Bars(MultiProgress);

impl Bars {
    pub fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self(MultiProgress::with_draw_target(target))
    }

    /// A bar of a file or job.
    pub fn add(&self, name: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:30!} {wide_bar} {percent:>3} %  {msg:20!}");
        let bar = self.0.add(ProgressBar::new(STEPS));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// A line above the bars.
    pub fn say(&self, line: &str) {
        if self.0.is_hidden() {
            eprintln!("{line}");
        } else {
            let _lost_with_the_terminal = self.0.println(line);
        }
    }
}

/// Shows how much of an upload is sent.
pub fn upload(bar: &ProgressBar, sent: u64, all: u64) {
    bar.set_position(sent.saturating_mul(STEPS) / all.max(1));
    bar.set_message(if sent < all { "uploading" } else { "waiting" });
}

/// Shows how far a job is.
pub fn job(bar: &ProgressBar, job: &Job) {
    bar.set_position((job.progress.unwrap_or(0.0).clamp(0.0, 1.0) * STEPS as f64) as u64);
    bar.set_message(match job.queue_position {
        Some(ahead) if job.status == "queued" => format!("{ahead} ahead"),
        _ => job.status.clone(),
    });
}
