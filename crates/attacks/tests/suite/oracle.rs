//! The fixed-budget attacks once more, written down plainly: one graph from the image to the loss, host arithmetic for
//! the step. Shares nothing with the crate but the model.

use burn::tensor::{Tensor, activation::log_softmax};
use fireproof_attacks::{Context, build};
use fireproof_tensor::{Batch, Norm};

use crate::support::{Network, batch, config, floats, tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Pgd,
    SegPgd,
    CosPgd,
}

pub struct Budget {
    pub norm: Norm,
    pub epsilon: f32,
    pub alpha: f32,
    pub steps: usize,
}

/// Adversarial images by the papers' formulas.
pub fn attack(kind: Kind, network: &Network, batch: &Batch, start: &Tensor<4>, budget: &Budget) -> Vec<f32> {
    let clean = floats(&batch.images);
    let labels: Vec<i32> = batch.targets.labels().clone().try_into_vec_as().unwrap();
    let [n, c, h, w] = batch.dims();
    let pixels = h * w;
    let mut current = floats(start);
    for t in 0..budget.steps {
        let leaf = tensor(current.clone(), [n, c, h, w]).autodiff().require_grad();
        let logits = network.forward(leaf.clone());
        let classes = logits.dims()[1];
        let z = floats(&logits.clone().inner());
        // −weight at the label's class, zero elsewhere: its product with log p is the loss.
        let mut selector = vec![0.0f32; z.len()];
        for (i, &label) in labels.iter().enumerate().filter(|(_, l)| **l != 255) {
            let (image, pixel) = (i / pixels, i % pixels);
            let at = |k: usize| (image * classes + k) * pixels + pixel;
            let column: Vec<f64> = (0..classes).map(|k| f64::from(z[at(k)])).collect();
            let best = (0..classes).max_by(|a, b| column[*a].total_cmp(&column[*b])).unwrap();
            let weight = match kind {
                Kind::Pgd => 1.0,
                Kind::SegPgd => {
                    let lambda = t as f64 / (2 * budget.steps) as f64;
                    if best == label as usize { 1.0 - lambda } else { lambda }
                }
                Kind::CosPgd => {
                    let exp: Vec<f64> = column.iter().map(|v| (v - column[best]).exp()).collect();
                    exp[label as usize] / exp.iter().map(|e| e * e).sum::<f64>().sqrt()
                }
            };
            selector[at(label as usize)] = -weight as f32;
        }
        let selector = Tensor::from_inner(tensor(selector, [n, classes, h, w]));
        let mut gradients = (log_softmax(logits, 1) * selector).sum().backward();
        let gradient = floats(&leaf.grad_remove(&mut gradients).unwrap());
        for image in 0..n {
            let range = image * c * pixels..(image + 1) * c * pixels;
            let length = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>().sqrt() as f32;
            let scale = length(&mut gradient[range.clone()].iter().copied()).max(1e-12);
            let mut delta: Vec<f32> = range
                .clone()
                .map(|i| {
                    let direction = match budget.norm {
                        Norm::Linf if gradient[i] == 0.0 => 0.0,
                        Norm::Linf => gradient[i].signum(),
                        Norm::L2 => gradient[i] / scale,
                    };
                    current[i] + budget.alpha * direction - clean[i]
                })
                .collect();
            match budget.norm {
                Norm::Linf => delta.iter_mut().for_each(|d| *d = d.clamp(-budget.epsilon, budget.epsilon)),
                Norm::L2 => {
                    let factor = (budget.epsilon / length(&mut delta.iter().copied()).max(1e-12)).min(1.0);
                    delta.iter_mut().for_each(|d| *d *= factor);
                }
            }
            for (i, d) in range.zip(delta) {
                current[i] = (clean[i] + d).clamp(0.0, 1.0);
            }
        }
    }
    current
}

/// How many values differ by more than rounding, `1e-6` or what the pictures' 255 levels could never show.
pub fn differing(found: &[f32], expected: &[f32]) -> usize {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).filter(|(a, b)| (*a - *b).abs() > 2e-6).count()
}

#[test]
fn every_method_agrees_with_the_plain_loop() {
    let network = Network::random(3, 3, 5);
    let victim = fireproof_tensor::victim(|x| network.forward(x));
    let batch = batch(4, &victim, 5, [2, 3, 16, 20]);
    for (norm, epsilon, alpha) in [(Norm::Linf, 8.0 / 255.0, 0.01), (Norm::L2, 0.5, 0.2)] {
        for (name, kind) in [("pgd", Kind::Pgd), ("segpgd", Kind::SegPgd), ("cospgd", Kind::CosPgd)] {
            for steps in [1, 4] {
                let mut settings = config(name);
                (settings.norm, settings.epsilon, settings.step_size, settings.steps) =
                    (norm, epsilon, Some(alpha), steps);
                let context = Context { start: Some(&batch.images), ..Context::new(1) };
                let found = build(&settings).unwrap().run(&victim, &batch, &context).unwrap();
                let budget = Budget { norm, epsilon, alpha, steps };
                let expected = attack(kind, &network, &batch, &batch.images, &budget);
                let differ = differing(&floats(&found.images), &expected);
                println!("{name} {norm} {steps}: {differ} of {} values differ", expected.len());
                assert!(differ * 500 <= expected.len(), "{name} {norm} {steps}: {differ} values differ");
            }
        }
    }
}
