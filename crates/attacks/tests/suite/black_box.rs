//! Attacks that see less than the model: its labels alone, or another model.

use burn::tensor::Tensor;
use fireproof_attacks::{AttackConfig, Context, Target, build};
use fireproof_tensor::{Batch, Passes, Targets, Victim, victim};

use crate::support::{Blind, Network, batch, config, device, floats};

/// One where the highest logit is, zero elsewhere.
fn hard(logits: Tensor<4>) -> Tensor<4> {
    let [n, k, h, w] = logits.dims();
    let classes: Vec<i32> = logits.argmax(1).try_into_vec_as().unwrap();
    let labels: Vec<u8> = classes.iter().map(|class| *class as u8).collect();
    let targets = Targets::from_labels(&labels, [n, h, w], &device()).unwrap();
    targets.one_hot(k)
}

fn setting() -> (Network, Batch) {
    let network = Network::diverse(3, 4);
    let batch = batch(41, &victim(|x| network.forward(x)), 4, [3, 3, 16, 20]);
    (network, batch)
}

fn accuracy(network: &Network, batch: &Batch, images: Tensor<4>) -> f32 {
    batch.targets.accuracy(&network.forward(images)).iter().sum::<f32>() / batch.len() as f32
}

#[test]
fn dla_sees_labels_only_and_beats_as_many_queries_of_noise() {
    let (network, batch) = setting();
    let soft = Blind(victim(|x| network.forward(x)));
    let labels_only = Blind(victim(|x| hard(network.forward(x))));
    let attack = build(&AttackConfig { epsilon: 0.06, steps: 120, ..config("dla") }).unwrap();
    let run = |model: &dyn Victim| attack.run(model, &batch, &Context::new(3)).unwrap();
    let found = run(&labels_only);
    assert_eq!(floats(&found.images), floats(&run(&soft).images), "logits make no difference");
    assert_eq!(found.passes, Passes { forward: 3 * 120, backward: 0 });
    let (values, clean) = (floats(&found.images), floats(&batch.images));
    let at_the_edge = |i: usize| ((values[i] - clean[i]).abs() - 0.06).abs() < 1e-6 || [0.0, 1.0].contains(&values[i]);
    assert!((0..values.len()).all(at_the_edge), "every value is at ±ε or at the end of its range");
    let noise = build(&AttackConfig { epsilon: 0.06, restarts: 120, ..config("noise") }).unwrap();
    let noise = noise.run(&soft, &batch, &Context::new(3)).unwrap();
    let (dla, noise) = (accuracy(&network, &batch, found.images), accuracy(&network, &batch, noise.images));
    let clean = accuracy(&network, &batch, batch.images.clone());
    println!("accuracy {clean} clean, {noise} under noise, {dla} under DLA");
    assert!(dla < noise && noise < clean);
}

#[test]
fn dla_never_gets_worse_with_more_queries_and_reaches_for_targets() {
    let (network, batch) = setting();
    let model = Blind(victim(|x| network.forward(x)));
    let run = |steps, target: Option<Target>| {
        // A fifth of the queries explores: the shorter run's are the first of the longer one's.
        let settings = AttackConfig { epsilon: 0.1, steps, target, ..config("dla") };
        let context = Context { trace: true, ..Context::new(3) };
        build(&settings).unwrap().run(&model, &batch, &context).unwrap()
    };
    let found = run(60, None);
    let rows = found.trace.unwrap().rows;
    let best = |image: usize| rows.iter().map(|row| row.loss[image]).fold(f32::NEG_INFINITY, f32::max);
    // The loss is minus the mIoU that is returned.
    let explored = |image: usize| rows[..12].iter().map(|row| row.loss[image]).fold(f32::NEG_INFINITY, f32::max);
    assert!((0..3).all(|image| best(image) >= explored(image)) && (0..3).any(|image| best(image) > explored(image)));
    let map = Target::Class(2).map(&batch).unwrap();
    let share = |images: Tensor<4>| map.accuracy(&network.forward(images)).iter().sum::<f32>();
    let (before, after) = (share(batch.images.clone()), share(run(60, Some(Target::Class(2))).images));
    assert!(after > before, "{before} → {after}");
}

#[test]
fn transfer_is_the_inner_attack_on_the_source() {
    let (network, batch) = setting();
    let other = Network::random(77, 3, 4);
    let (model, source) = (victim(|x| network.forward(x)), victim(|x| other.forward(x)));
    let settings = |name: &str, options: &[(&str, &str)]| AttackConfig {
        steps: 5,
        options: options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        ..config(name)
    };
    for inner in ["mi-fgsm", "pgd", "segpgd"] {
        let transfer = build(&settings("transfer", &[("attack", inner), ("source", "other.safetensors")])).unwrap();
        assert_eq!(transfer.source(), Some("other.safetensors"));
        let context = Context { source: Some(&source), ..Context::new(2) };
        // The victim is not looked at: it may be blind.
        let found = transfer.run(&Deaf, &batch, &context).unwrap();
        let start = config("transfer").start;
        let alone = build(&AttackConfig { steps: 5, start, ..config(inner) }).unwrap();
        let alone = alone.run(&source, &batch, &Context::new(2)).unwrap();
        assert_eq!(floats(&found.images), floats(&alone.images), "{inner}");
        assert_eq!(found.passes, alone.passes);
        let white = build(&AttackConfig { steps: 5, start, ..config(inner) }).unwrap();
        let white = white.run(&model, &batch, &Context::new(2)).unwrap();
        let own = transfer.run(&model, &batch, &Context::new(2)).unwrap();
        assert_eq!(floats(&own.images), floats(&white.images), "without a source the victim is its own");
        let (white, black) = (accuracy(&network, &batch, white.images), accuracy(&network, &batch, found.images));
        println!("{inner}: white box {white}, transfer {black}");
        assert!(white < black);
    }
    // The inner attack's options are transfer's too.
    let with = settings("transfer", &[("attack", "segpgd"), ("lambda", "0.3")]);
    build(&with).unwrap();
    build(&settings("transfer", &[("attack", "apgd"), ("objective", "segpgd"), ("lambda", "0.3")])).unwrap();
    let refused = |options| build(&settings("transfer", options)).err().expect("must be refused").to_string();
    assert!(refused(&[("attack", "transfer")]).contains("attack is 'transfer'"));
    assert!(refused(&[("attack", "universal")]).contains("needs nothing but a model"));
    assert!(refused(&[("attack", "nothing")]).contains("unknown attack 'nothing'"));
    assert!(refused(&[("lambda", "0.3")]).contains("lambda = '0.3'"));
}

/// A victim that may not be asked.
struct Deaf;

impl Victim for Deaf {
    fn logits(&self, _images: Tensor<4>) -> fireproof_tensor::Result<Tensor<4>> {
        panic!("a transfer attack asked the victim")
    }
}
