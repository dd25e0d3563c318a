//! How far a bench is.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use fireproof_eval::Progress;
use fireproof_report::labels;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, a line every few seconds otherwise; on standard error either way.
pub struct Display {
    bar: Option<ProgressBar>,
    started: Instant,
    said: Option<Instant>,
}

impl Display {
    /// Starts the clock.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("a fixed template");
            ProgressBar::new(1).with_style(style)
        });
        Self { bar, started: Instant::now(), said: None }
    }

    /// Shows where the run is.
    pub fn show(&mut self, progress: &Progress) {
        let text = format!("{}{}", progress.now, self.left(progress));
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(text);
            }
            None if self.said.is_none_or(|said| said.elapsed() > Duration::from_secs(5)) => {
                self.said = Some(Instant::now());
                eprintln!("{:3} %  {text}", 100 * progress.done / progress.total.max(1));
            }
            None => {}
        }
    }

    /// Clears the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn left(&self, progress: &Progress) -> String {
        let missing = progress.total.saturating_sub(progress.done);
        if progress.made == 0 || missing == 0 {
            return String::new();
        }
        let seconds = self.started.elapsed().as_secs_f64() / progress.made as f64 * missing as f64;
        format!(", {} left", labels::duration(seconds))
    }
}
