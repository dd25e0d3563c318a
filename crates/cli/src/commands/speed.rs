//! `speed`: what a pass costs, in the same terms as the PyTorch script that we compare ourselves with.

use std::cell::RefCell;
use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use burn::tensor::Device;
use clap::Args;
use fireproof_attacks::{AttackConfig, Context, Start, View, build};
use fireproof_models::{Architecture, Network, Taps};
use fireproof_tensor::{
    Batch, Victim, memory,
    ops::{self, Account, Machine},
    random::Stream,
};
use serde_json::{Map, Value, json};

/// Time a forward pass, a gradient, an attack step and a training step.
///
/// Random weights and images. Prints one JSON line: seconds of a forward pass, of a forward and input-gradient pass of the
/// frozen model, of one SegPGD step, of a training step (all gradients, no optimizer), each the median of --runs after a
/// warm-up, and the peak memory in MiB. Run it on an otherwise idle machine.
#[derive(Debug, Args)]
pub struct Speed {
    /// The network by name
    #[arg(long, default_value = "unet", value_name = "NAME")]
    model: String,
    /// Channels of the first level, for networks that have the setting
    #[arg(long, default_value_t = 32)]
    base: usize,
    /// Number of classes
    #[arg(long, default_value_t = 12)]
    classes: usize,
    /// Height and width
    #[arg(long, num_args = 2, default_values_t = [256, 256], value_names = ["HEIGHT", "WIDTH"])]
    size: Vec<usize>,
    /// Images in a pass
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Threads [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Timed passes of each kind
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Leave out the training step
    #[arg(long)]
    skip_train: bool,
    /// Device by name
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
}

impl Speed {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        for (name, value) in [("--classes", self.classes), ("--batch", self.batch), ("--runs", self.runs)] {
            ensure!(value > 0, "{name}: found 0, expected at least 1");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores);
        ensure!(threads > 0, "--threads: found 0, expected at least 1");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot set the number of threads")?;
        let device = fireproof_tensor::device::open(&self.device)?;
        let names: Vec<String> = (0..self.classes).map(|class| format!("class {class}")).collect();
        let mut architecture = Architecture::new(&self.model, &names)?;
        if let Some(base) = architecture.options.get_mut("base") {
            *base = self.base;
        }
        let batch = self.images(&device)?;

        let mut row = Map::new();
        row.insert("model".into(), self.model.replace('-', "_").into());
        row.insert("base".into(), self.base.into());
        row.insert("size".into(), json!(self.size));
        row.insert("batch".into(), self.batch.into());
        row.insert("threads".into(), threads.into());
        row.insert("fireproof".into(), fireproof_eval::facts::VERSION.into());
        row.insert("device".into(), self.device.clone().into());
        // An attack holds the victim alone, so the network that it was made from is dropped.
        let victim = fireproof_models::build(&architecture, 0, &device)?.victim();
        self.frozen(&victim, &batch, &device, &mut row)?;
        drop(victim);
        // As in the PyTorch script: batch norm over a map pooled to a single pixel needs two images.
        if !self.skip_train && self.batch > 1 {
            let mut network = fireproof_models::build(&architecture, 0, &device)?;
            row.insert("train_step_s".into(), self.training(&mut *network, &batch, &device)?.into());
        }
        row.insert("peak_rss_mib".into(), memory::peak().map_or(Value::Null, |bytes| (bytes >> 20).into()));
        writeln!(std::io::stdout(), "{}", Value::Object(row))?;
        Ok(())
    }

    fn images(&self, device: &Device) -> Result<Batch> {
        let (height, width) = (self.size[0], self.size[1]);
        let dims = [self.batch, 3, height, width];
        let stream = Stream::new(&[0]);
        let pixels = (0..dims.iter().product::<usize>()).map(|at| stream.uniform(at as u64)).collect();
        let labels = stream.child("labels");
        let labels: Vec<u8> = (0..self.batch * height * width)
            .map(|at| labels.below(at as u64, self.classes.min(255) as u64) as u8)
            .collect();
        Ok(Batch::from_host(pixels, &labels, dims, (0..self.batch as u64).collect(), device)?)
    }

    fn frozen(
        &self,
        victim: &Box<dyn Victim + Send + Sync>,
        batch: &Batch,
        device: &Device,
        row: &mut Map<String, Value>,
    ) -> Result<()> {
        let forward = self.median(device, || {
            victim.logits(batch.images.clone())?;
            Ok(())
        })?;
        row.insert("forward_s".into(), forward.into());
        // An H100: 60 TFLOP/s in f32, 3 TB/s.
        let machine = Machine { operations: 60e12, bytes: 3e12 };
        let (logits, account) = ops::account(|| victim.logits(batch.images.clone()));
        let size = |dims: [usize; 4]| dims.iter().product::<usize>();
        let pixels = batch.targets.dims().iter().product();
        let mut cost = account.forward_and_input_gradient(machine);
        cost += Account::attack_step(size(batch.dims()), size(logits?.dims()), pixels, machine);
        row.insert("step_kernels".into(), cost.kernels.into());
        row.insert("step_gflop".into(), (cost.operations / 1e9).into());
        row.insert("step_gbyte".into(), (cost.bytes / 1e9).into());
        row.insert("step_floor_h100_s".into(), cost.floor.into());
        row.insert("largest_tensor_mib".into(), (account.largest as f64 * 4.0 / f64::from(1 << 20)).into());
        let pixels = (batch.dims()[0] * batch.dims()[2] * batch.dims()[3]) as f64;
        let gradient = self.median(device, || {
            victim.pull_back(batch.images.clone(), &mut |logits| {
                Ok(ops::weighted_cross_entropy(&logits, &batch.targets, None).gradient / pixels)
            })?;
            Ok(())
        })?;
        row.insert("input_gradient_s".into(), gradient.into());

        // The time from one iterate's forward pass to the next: a whole step, whatever is in it.
        let steps = self.runs + 2;
        let config = AttackConfig { steps, start: Start::Zero, ..AttackConfig::new("segpgd")? };
        let moments = RefCell::new(Vec::with_capacity(steps));
        let observer = |_: &View<'_>| {
            // Failing to wait would show as an absurd time, not as a wrong result.
            let _ = device.sync();
            moments.borrow_mut().push(Instant::now());
        };
        let context = Context { observer: Some(&observer), ..Context::new(0) };
        build(&config)?.run(victim, batch, &context)?;
        let moments = moments.into_inner();
        let intervals = moments.windows(2).skip(1).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        row.insert("segpgd_step_s".into(), median(intervals).into());
        Ok(())
    }

    fn training(&self, network: &mut dyn Network, batch: &Batch, device: &Device) -> Result<f64> {
        network.train_mode();
        self.median(device, || {
            let output = network.forward(batch.images.clone().autodiff(), &mut Taps::train());
            let loss = ops::cross_entropy(output.logits, &batch.targets).mean();
            loss.backward();
            Ok(())
        })
    }

    /// Median seconds of `--runs` calls after one.
    fn median(&self, device: &Device, mut action: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut timed = || -> Result<f64> {
            let started = Instant::now();
            action()?;
            device.sync().map_err(|error| anyhow::anyhow!("{}: {error:?}", self.device))?;
            Ok(started.elapsed().as_secs_f64())
        };
        timed()?;
        (0..self.runs).map(|_| timed()).collect::<Result<Vec<_>>>().map(median)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!((super::median(vec![3.0, 1.0, 2.0]), super::median(vec![4.0, 1.0, 3.0, 2.0])), (2.0, 2.5));
    }
}
