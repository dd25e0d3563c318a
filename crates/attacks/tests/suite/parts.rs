//! The parts by themselves: momentum, and a threat whose variable is not the image.

use burn::tensor::Tensor;
use fireproof_attacks::{
    Attack, Context, GradientAttack, Result, Scene, Start, Variables,
    methods::pgd::Pgd,
    objective::Weighted,
    threat::{Space, Threat},
    update::{Momentum, Steepest, Update},
};
use fireproof_tensor::{Batch, Targets, Victim, ops::weighted_cross_entropy, victim};

use crate::support::{Network, batch, config, device, floats, tensor};

fn attack(update: impl Update + 'static, steps: usize) -> GradientAttack {
    let settings = fireproof_attacks::AttackConfig { steps, start: Start::Zero, ..config("pgd") };
    GradientAttack { update: Box::new(update), ..GradientAttack::new(&settings, Weighted(Pgd)).unwrap() }
}

#[test]
fn momentum_without_memory_is_the_plain_step() {
    let model = Network::random(31, 3, 4).victim();
    let batch = batch(32, &model, 4, [2, 3, 12, 12]);
    let run = |update| attack_images(update, &model, &batch);
    fn attack_images(update: Box<dyn Update>, model: &dyn Victim, batch: &Batch) -> Vec<f32> {
        let attack = GradientAttack { update, ..attack(Steepest { step_size: 0.01 }, 4) };
        floats(&attack.run(model, batch, &Context::new(0)).unwrap().images)
    }
    let plain = run(Box::new(Steepest { step_size: 0.01 }));
    assert_eq!(plain, run(Box::new(Momentum { step_size: 0.01, decay: 0.0 })));
    assert_ne!(plain, run(Box::new(Momentum { step_size: 0.01, decay: 1.0 })));
}

#[test]
fn momentum_sums_gradients_over_their_mean_magnitude() {
    // The loss gradient turns its sign between the first and the second step; with μ = 1 the sum is exactly zero there.
    let pass = std::cell::Cell::new(0);
    let model = victim(|x: Tensor<4>| {
        pass.set(pass.get() + 1);
        let sign = if pass.get() == 1 { 1.0 } else { -1.0 };
        let difference = x.clone().mean_dim(1) * sign;
        Tensor::cat(vec![difference.clone(), -difference], 1)
    });
    let images = tensor(vec![0.5; 4], [1, 1, 2, 2]);
    let targets = Targets::from_labels(&[0; 4], [1, 2, 2], &device()).unwrap();
    let batch = Batch::new(images, targets, vec![0]).unwrap();
    let run = |decay, steps| {
        pass.set(0);
        let found = attack(Momentum { step_size: 0.01, decay }, steps).run(&model, &batch, &Context::new(0)).unwrap();
        floats(&found.images)
    };
    assert!(run(1.0, 1).iter().all(|v| (v - 0.49).abs() < 1e-6));
    assert_eq!(run(1.0, 2), run(1.0, 1), "the two unit gradients cancel");
    assert!(run(0.5, 2).iter().all(|v| (v - 0.5).abs() < 1e-6), "half of the first is outweighed by the second");
}

/// One perturbation for all images of the batch: a variable of another shape, with autodiff to reach it.
struct Shared {
    epsilon: f32,
}

struct SharedSpace<'a> {
    clean: &'a Tensor<4>,
    epsilon: Tensor<1>,
}

impl Threat for Shared {
    fn bind<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn Space + 'a>> {
        Ok(Box::new(SharedSpace { clean: &scene.batch.images, epsilon: tensor(vec![self.epsilon], [1]) }))
    }
}

impl Space for SharedSpace<'_> {
    fn start(&self, _start: Start, _seeds: &fireproof_attacks::Seeds) -> Result<Variables> {
        let [_, c, h, w] = self.clean.dims();
        Ok(vec![Tensor::zeros([1, c, h, w], &self.clean.device())])
    }

    fn apply(&self, variables: &[Tensor<4>]) -> Tensor<4> {
        let shared = variables[0].clone();
        let clean = if shared.is_autodiff() { Tensor::from_inner(self.clean.clone()) } else { self.clean.clone() };
        clean + shared.repeat_dim(0, self.clean.dims()[0])
    }

    fn ascend(&self, variables: Variables, gradients: Variables, step_size: &Tensor<1>) -> Variables {
        let length = step_size.clone().slice([0..1]).reshape([1, 1, 1, 1]);
        self.project(vec![variables[0].clone() + gradients[0].clone().sign() * length])
    }

    fn project(&self, mut variables: Variables) -> Variables {
        let bound = self.epsilon.clone().try_into_vec_as::<f32>().unwrap()[0];
        vec![variables.remove(0).clamp(-bound, bound)]
    }

    fn epsilon(&self) -> &Tensor<1> {
        &self.epsilon
    }
}

#[test]
fn a_variable_that_is_not_the_image_gets_its_gradient_through_apply() {
    let network = Network::random(41, 3, 4);
    let model = victim(|x| network.forward(x));
    let batch = batch(42, &model, 4, [3, 3, 12, 12]);
    let shared =
        GradientAttack { threat: Box::new(Shared { epsilon: 0.02 }), ..attack(Steepest { step_size: 0.01 }, 1) };
    let found = shared.run(&model, &batch, &Context::new(0)).unwrap();
    let (_, gradient) = model
        .pull_back(batch.images.clone(), &mut |z| Ok(weighted_cross_entropy(&z, &batch.targets, None).gradient))
        .unwrap();
    let summed = floats(&gradient.sum_dim(0));
    let (found, clean) = (floats(&found.images), floats(&batch.images));
    for (i, (found, clean)) in found.iter().zip(&clean).enumerate() {
        assert!((found - clean - 0.01 * summed[i % summed.len()].signum()).abs() < 1e-6, "value {i}");
    }
}
