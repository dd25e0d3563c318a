//! What the user sees while a run goes on.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{Display, EpochRecord};

/// Seconds between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal, lines elsewhere, all on standard error.
pub(crate) struct Progress {
    shown: Shown,
    epochs: usize,
    steps: u64,
    first_step: u64,
    started: Instant,
    scores: String,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    pub(crate) fn new(display: Display, epochs: usize, steps: u64, first_step: u64) -> Self {
        let shown = match display {
            Display::Silent => Shown::Nothing,
            Display::Auto if std::io::stderr().is_terminal() => {
                let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta_precise} left");
                let bar = ProgressBar::new(steps).with_style(style.expect("the template is valid"));
                bar.set_position(first_step);
                bar.reset_eta();
                Shown::Bar(bar)
            }
            Display::Auto | Display::Lines => Shown::Lines { last: Instant::now() },
        };
        Self { shown, epochs, steps, first_step, started: Instant::now(), scores: String::new() }
    }

    /// After a step: the number of steps made, finished epochs, loss and backbone rate.
    pub(crate) fn step(&mut self, step: u64, epoch: usize, loss: f64, rate: f64) {
        let words = format!("epoch {}/{} loss {loss:.4} lr {rate:.2e}{}", epoch + 1, self.epochs, self.scores);
        let left = self.left(step);
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(words);
                bar.set_position(step);
            }
            Shown::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                eprintln!("step {step}/{} {words}, {left} left", self.steps);
            }
            _ => {}
        }
    }

    /// After a validation.
    pub(crate) fn epoch(&mut self, record: &EpochRecord, best: bool) {
        if let Some(clean) = record.clean_miou {
            self.scores = format!(" val mIoU {:.1} % clean", 100.0 * clean);
            if let Some(robust) = record.robust_miou {
                self.scores += &format!(", {:.1} % attacked", 100.0 * robust);
            }
        }
        let words = format!(
            "epoch {}/{} done: mean loss {:.4}{}{}, {} left",
            record.epoch,
            self.epochs,
            record.loss,
            self.scores,
            if best { " (best so far)" } else { "" },
            self.left(record.step)
        );
        self.note(&words);
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, words: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.println(words),
            Shown::Lines { last } => {
                *last = Instant::now();
                eprintln!("{words}");
            }
            Shown::Nothing => {}
        }
    }

    /// The time that the remaining steps take at the pace of this process, validation and saving included.
    fn left(&self, step: u64) -> String {
        let made = step.saturating_sub(self.first_step);
        if made == 0 {
            return "unknown time".into();
        }
        let seconds = self.started.elapsed().as_secs_f64() / made as f64 * self.steps.saturating_sub(step) as f64;
        match seconds as u64 {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
            seconds => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
