//! The loader: order, resumption, bounded memory, errors.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fireproof_datasets::{
    Augment, Class, Dataset, Error, Image, Loaded, Loader, LoaderOptions, Mask, Position, Result, Sample,
};

/// Samples that say how often they were read; some fail, panic, or have another size.
struct Source {
    classes: Vec<Class>,
    len: usize,
    fails: Vec<usize>,
    panics: Vec<usize>,
    large: Vec<usize>,
    read: AtomicUsize,
}

impl Source {
    fn new(len: usize) -> Self {
        let classes = vec![Class { name: "a".into(), color: [0; 3] }];
        Self { classes, len, fails: vec![], panics: vec![], large: vec![], read: AtomicUsize::new(0) }
    }
}

impl Dataset for Source {
    fn name(&self) -> &str {
        "source"
    }
    fn split(&self) -> &str {
        "train"
    }
    fn len(&self) -> usize {
        self.len
    }
    fn classes(&self) -> &[Class] {
        &self.classes
    }
    fn channels(&self) -> usize {
        1
    }
    fn sample_name(&self, index: usize) -> String {
        format!("s{index}")
    }
    fn stored_as(&self, _: usize) -> Result<String> {
        Ok("made".into())
    }
    fn get(&self, index: usize) -> Result<Sample> {
        self.read.fetch_add(1, Ordering::SeqCst);
        // Uneven durations, so that several workers finish out of order.
        std::thread::sleep(std::time::Duration::from_micros((index as u64 * 7919) % 700));
        assert!(!self.panics.contains(&index), "reader broke");
        if self.fails.contains(&index) {
            return Err(Error::file(format!("s{index}.png"), "nothing", "something"));
        }
        let side = if self.large.contains(&index) { 9 } else { 8 };
        let data = (0..side * side).map(|pixel| (index * 31 + pixel) as f32 % 256.0 / 255.0).collect();
        let image = Image { channels: 1, height: side, width: side, data };
        let mask = Mask { height: side, width: side, data: vec![0; side * side] };
        Ok(Sample { id: index as u64, name: self.sample_name(index), image, mask, case: None })
    }
}

fn options(workers: usize) -> LoaderOptions {
    let augment = Augment { blur: None, ..Augment::ddc_at((6, 6), (0.5, 2.0)) };
    LoaderOptions { workers, epochs: Some(3), drop_last: false, ..LoaderOptions::training(4, 11, augment) }
}

fn all(source: Source, options: LoaderOptions) -> Vec<Result<Loaded>> {
    Loader::new(Arc::new(source), options).unwrap().collect()
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let expected = all(Source::new(23), options(0));
    assert_eq!(expected.len(), 18);
    for workers in [1, 3] {
        assert_eq!(all(Source::new(23), options(workers)), expected, "{workers} workers");
    }
}

#[test]
fn every_epoch_holds_every_sample_once_in_an_order_of_its_own() {
    let loaded = all(Source::new(23), options(3));
    let mut orders = Vec::new();
    for epoch in 0..3 {
        let batches =
            loaded.iter().map(|loaded| loaded.as_ref().unwrap()).filter(|loaded| loaded.position.epoch == epoch);
        let order: Vec<u64> = batches.flat_map(|loaded| loaded.samples.iter().map(|sample| sample.id)).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..23).collect::<Vec<u64>>());
        orders.push(order);
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
}

#[test]
fn a_loader_goes_on_from_any_position() {
    let expected = all(Source::new(23), options(0));
    for (done, loaded) in expected.iter().enumerate() {
        let position = loaded.as_ref().unwrap().position;
        for workers in [0, 2] {
            let rest = Loader::starting_at(Arc::new(Source::new(23)), options(workers), position).unwrap();
            assert_eq!(rest.next_position(), position);
            assert_eq!(rest.collect::<Vec<_>>(), expected[done..], "from {position:?}");
        }
    }
    let end = Position { epoch: 0, batch: 6 };
    let next = Loader::starting_at(Arc::new(Source::new(23)), options(0), end).unwrap();
    assert_eq!(next.next_position(), Position { epoch: 1, batch: 0 }, "the end of an epoch is the start of the next");
    let beyond = Position { epoch: 0, batch: 7 };
    assert!(Loader::starting_at(Arc::new(Source::new(23)), options(0), beyond).is_err());
}

#[test]
fn dropping_the_last_batch_keeps_batches_equal() {
    let options = LoaderOptions { drop_last: true, ..options(1) };
    let loader = Loader::new(Arc::new(Source::new(23)), options).unwrap();
    assert_eq!(loader.batches_per_epoch(), 5);
    let loaded: Vec<Loaded> = loader.map(Result::unwrap).collect();
    assert!(loaded.len() == 15 && loaded.iter().all(|loaded| loaded.samples.len() == 4));
}

#[test]
fn errors_and_panics_come_in_their_place_and_the_stream_goes_on() {
    for workers in [0, 1, 3] {
        let source = Source { fails: vec![5], panics: vec![9], ..Source::new(16) };
        let loaded = all(source, LoaderOptions { workers, ..LoaderOptions::evaluation(4) });
        assert_eq!(loaded[0].as_ref().unwrap().samples.len(), 4);
        assert_eq!(loaded[1].as_ref().unwrap_err().to_string(), "s5.png: found nothing, expected something");
        assert_eq!(loaded[2].as_ref().unwrap_err().to_string(), "sample 9 (`s9`): a worker panicked: reader broke");
        assert_eq!(loaded[3].as_ref().unwrap().samples[3].id, 15);
    }
}

#[test]
fn samples_of_different_size_do_not_share_a_batch() {
    let source = Source { large: vec![2], ..Source::new(4) };
    let message = all(source, LoaderOptions::evaluation(4))[0].as_ref().unwrap_err().to_string();
    assert!(message.contains("`s0` of 8x8 and `s2` of 9x9"), "{message}");
    let source = Source { large: vec![2], ..Source::new(4) };
    assert!(all(source, LoaderOptions::evaluation(1)).iter().all(Result::is_ok));
}

#[test]
fn no_more_is_read_ahead_than_asked_for() {
    for prefetch in [0, 2] {
        let source = Arc::new(Source::new(100));
        let options = LoaderOptions { workers: 3, prefetch, ..LoaderOptions::evaluation(4) };
        let mut loader = Loader::new(source.clone(), options).unwrap();
        for taken in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(60));
            assert_eq!(source.read.load(Ordering::SeqCst), (taken + 1 + prefetch) * 4, "after {taken} batches");
            loader.next().unwrap().unwrap();
        }
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let message = |options| Loader::new(Arc::new(Source::new(3)), options).err().unwrap().to_string();
    assert_eq!(message(LoaderOptions::evaluation(0)), "batch size: found 0, expected at least 1");
    let training = LoaderOptions::training(4, 0, Augment::default());
    assert_eq!(message(training), "batch size: found 4, expected at most the 3 samples of source split `train`");
    let augment = Augment { blur: Some(-1.0), ..Augment::default() };
    assert!(message(LoaderOptions { augment, ..LoaderOptions::evaluation(1) }).starts_with("blur: found -1"));
}

#[test]
fn an_endless_loader_ends_when_it_is_dropped() {
    let source = Arc::new(Source::new(8));
    let mut loader = Loader::new(source.clone(), LoaderOptions { epochs: None, ..options(3) }).unwrap();
    for _ in 0..50 {
        loader.next().unwrap().unwrap();
    }
    assert_eq!(loader.next_position(), Position { epoch: 25, batch: 0 });
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1, "no worker is left");
}
