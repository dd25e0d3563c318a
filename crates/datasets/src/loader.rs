//! Batches in a fixed order, read ahead by worker threads.
//!
//! The order is a function of (seed, epoch, position): the number of workers changes when a sample is read, never where
//! it comes out. At most the batch in hand and `prefetch` further batches are held in memory.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};

use crate::{Augment, Dataset, Error, Result, Sample, random};

/// How to load.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// A new order in every epoch; otherwise list order.
    pub shuffle: bool,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Where to stop; `None` never ends.
    pub epochs: Option<u64>,
    /// Leaves out the last batch of an epoch if it is smaller than the others.
    pub drop_last: bool,
    /// Threads that read; 0 reads in the caller's thread.
    pub workers: usize,
    /// Batches that are read ahead.
    pub prefetch: usize,
    /// What happens to samples on the way.
    pub augment: Augment,
}

impl LoaderOptions {
    /// Endless, shuffled, equal batches, two batches read ahead by one worker. On a CPU the training step wants the other
    /// cores; give more workers where a GPU trains.
    pub fn training(batch_size: usize, seed: u64, augment: Augment) -> Self {
        Self { batch_size, shuffle: true, seed, epochs: None, drop_last: true, workers: 1, prefetch: 2, augment }
    }

    /// Every sample once, in list order, unchanged.
    pub fn evaluation(batch_size: usize) -> Self {
        Self {
            batch_size,
            shuffle: false,
            seed: 0,
            epochs: Some(1),
            drop_last: false,
            workers: 1,
            prefetch: 2,
            augment: Augment::default(),
        }
    }
}

/// A place in the stream: what a checkpoint stores to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batch within the epoch, from 0.
    pub batch: u64,
}

/// Samples of equal size.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Where in the stream they stand.
    pub position: Position,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// Iterates over batches; see the [module](self).
///
/// An item is an error if a sample of its batch could not be read or the batch's samples differ in size; the next item is
/// the next batch.
///
/// ```
/// use fireproof_datasets::{Loader, LoaderOptions, Options, Split, open};
///
/// let scenes = open("scenes", None, Split::Val, Options { length: Some(10), ..Options::default() })?;
/// let loader = Loader::new(scenes.into(), LoaderOptions::evaluation(4))?;
/// let sizes: Vec<usize> = loader.map(|batch| batch.map(|batch| batch.samples.len())).collect::<Result<_, _>>()?;
/// assert_eq!(sizes, [4, 4, 2]);
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
pub struct Loader {
    shared: Arc<Shared>,
    /// Number of the next sample in the endless stream of all epochs.
    next: u64,
    workers: Vec<JoinHandle<()>>,
}

/// What the caller and the workers see.
struct Shared {
    dataset: Arc<dyn Dataset>,
    options: LoaderOptions,
    /// Samples of an epoch that are used.
    per_epoch: u64,
    end: u64,
    state: Mutex<State>,
    /// A sample has become ready.
    ready: Condvar,
    /// The window has moved, or the loader is gone.
    wanted: Condvar,
}

struct State {
    /// The first sample that nobody reads yet.
    unread: u64,
    /// The first sample that may not be read yet.
    limit: u64,
    samples: BTreeMap<u64, Result<Sample>>,
    orders: BTreeMap<u64, Arc<Vec<usize>>>,
    closed: bool,
}

impl Loader {
    /// A loader at the start of the first epoch.
    ///
    /// # Errors
    /// If the batch size is zero or, with `drop_last`, larger than the data set; if an augmentation is out of range.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Result<Self> {
        Self::starting_at(dataset, options, Position::default())
    }

    /// A loader that goes on from a position, as if it had delivered everything before.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if an epoch has no such batch.
    pub fn starting_at(dataset: Arc<dyn Dataset>, options: LoaderOptions, position: Position) -> Result<Self> {
        options.augment.validate()?;
        let (len, size) = (dataset.len() as u64, options.batch_size as u64);
        if size == 0 {
            return Err(Error::argument("batch size", 0, "at least 1"));
        }
        let per_epoch = if options.drop_last { len / size * size } else { len };
        if per_epoch == 0 {
            let expected = format!("at most the {len} samples of {} split `{}`", dataset.name(), dataset.split());
            return Err(Error::argument("batch size", size, expected));
        }
        let batches = per_epoch.div_ceil(size);
        if position.batch > batches {
            return Err(Error::argument("position", format!("batch {}", position.batch), format!("at most {batches}")));
        }
        let place = |epoch: u64| epoch.checked_mul(per_epoch);
        let next = place(position.epoch).and_then(|first| first.checked_add((position.batch * size).min(per_epoch)));
        let next =
            next.ok_or_else(|| Error::argument("position", format!("epoch {}", position.epoch), "a smaller epoch"))?;
        let end = options.epochs.map_or(u64::MAX, |epochs| place(epochs).unwrap_or(u64::MAX));
        let workers = options.workers;
        let state =
            State { unread: next, limit: next, samples: BTreeMap::new(), orders: BTreeMap::new(), closed: false };
        let shared = Arc::new(Shared {
            dataset,
            options,
            per_epoch,
            end,
            state: Mutex::new(state),
            ready: Condvar::new(),
            wanted: Condvar::new(),
        });
        let mut loader = Self { shared, next, workers: Vec::with_capacity(workers) };
        loader.allow();
        for number in 0..workers {
            let shared = loader.shared.clone();
            let spawned = std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || shared.work());
            let worker =
                spawned.map_err(|error| Error::argument("workers", format!("{workers} ({error})"), "fewer"))?;
            loader.workers.push(worker);
        }
        Ok(loader)
    }

    /// Number of batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.shared.per_epoch.div_ceil(self.size())
    }

    /// The position of the next batch.
    pub fn next_position(&self) -> Position {
        let shared = &self.shared;
        Position { epoch: self.next / shared.per_epoch, batch: self.next % shared.per_epoch / self.size() }
    }

    fn size(&self) -> u64 {
        self.shared.options.batch_size as u64
    }

    /// Lets the workers read as far as memory allows: this batch and those ahead.
    fn allow(&self) {
        let ahead = (self.shared.options.prefetch as u64).saturating_add(1).saturating_mul(self.size());
        self.shared.lock().limit = self.next.saturating_add(ahead).min(self.shared.end);
        self.shared.wanted.notify_all();
    }
}

impl Iterator for Loader {
    type Item = Result<Loaded>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.shared.end {
            return None;
        }
        let position = self.next_position();
        let left = self.shared.per_epoch - self.next % self.shared.per_epoch;
        let numbers = self.next..self.next + left.min(self.size());
        self.next = numbers.end;
        let read: Vec<Result<Sample>> = if self.workers.is_empty() {
            numbers.map(|number| self.shared.read(number)).collect()
        } else {
            numbers.map(|number| self.shared.take(number)).collect()
        };
        self.allow();
        Some(collate(position, read))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wanted.notify_all();
        for worker in self.workers.drain(..) {
            // A worker only ends by returning: panics of readers are caught and delivered as errors.
            let _ = worker.join();
        }
    }
}

fn collate(position: Position, read: Vec<Result<Sample>>) -> Result<Loaded> {
    let samples: Vec<Sample> = read.into_iter().collect::<Result<_>>()?;
    let first = &samples[0];
    let shape = |sample: &Sample| (sample.image.channels, sample.image.size(), sample.mask.size());
    if let Some(other) = samples.iter().find(|sample| shape(sample) != shape(first)) {
        let words = |sample: &Sample| format!("`{}` of {}x{}", sample.name, sample.image.width, sample.image.height);
        let expected = "samples of one size in a batch: a common size, a crop, or a batch size of 1";
        return Err(Error::argument("batch", format!("{} and {}", words(first), words(other)), expected));
    }
    Ok(Loaded { position, samples })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            if state.unread >= state.limit {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let number = state.unread;
            state.unread += 1;
            drop(state);
            let sample = self.read(number);
            state = self.lock();
            state.samples.insert(number, sample);
            self.ready.notify_all();
        }
    }

    /// Waits for a sample that a worker reads.
    fn take(&self, number: u64) -> Result<Sample> {
        let mut state = self.lock();
        loop {
            if let Some(sample) = state.samples.remove(&number) {
                return sample;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads and augments the sample of that number in the stream.
    fn read(&self, number: u64) -> Result<Sample> {
        let (epoch, place) = (number / self.per_epoch, (number % self.per_epoch) as usize);
        let index = if self.options.shuffle { self.order(epoch)[place] } else { place };
        let read = || {
            let sample = self.dataset.get(index)?;
            Ok(self.options.augment.apply(sample, self.options.seed, epoch))
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message =
                text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
            Err(Error::Panicked { id: self.dataset.id(index), name: self.dataset.sample_name(index), message })
        })
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        if let Some(order) = self.lock().orders.get(&epoch) {
            return order.clone();
        }
        let order = Arc::new(random::permutation(&[self.options.seed, epoch, 0x6f72_6465], self.dataset.len()));
        let mut state = self.lock();
        // Epochs before the last are over, except for samples that are being read and hold their own reference.
        state.orders.retain(|&other, _| other + 1 >= epoch);
        state.orders.insert(epoch, order.clone());
        order
    }
}
