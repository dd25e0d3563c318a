//! How a run is steered from outside: resuming, interrupting, watching.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// A request to finish the step, save and leave. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the run to stop after the step it is in.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Makes the first Ctrl-C (or SIGTERM) a request, and the second one the end of the process with status 130.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn on_signals(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: at the first signal the flag is still down, so only the second handler acts.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&self.0))?;
            flag::register(signal, Arc::clone(&self.0))?;
        }
        Ok(())
    }
}

/// How progress is shown, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Display {
    /// A bar when standard error is a terminal, lines otherwise.
    #[default]
    Auto,
    /// A line every few seconds and one an epoch.
    Lines,
    /// Nothing.
    Silent,
}

/// How a run is steered from outside. Nothing here changes what it computes.
#[derive(Clone, Debug)]
pub struct Control {
    /// Continue from the folder's checkpoint; without one, start.
    pub resume: bool,
    /// Stops the run after the step it is in.
    pub stop: Stop,
    /// How progress is shown.
    pub display: Display,
    /// Time after which the run is saved within an epoch.
    pub save_every: Duration,
    /// Threads that read and augment.
    pub workers: usize,
}

impl Default for Control {
    /// A new run that is saved every five minutes, with one loader thread.
    fn default() -> Self {
        Self {
            resume: false,
            stop: Stop::default(),
            display: Display::default(),
            save_every: Duration::from_secs(300),
            workers: 1,
        }
    }
}
