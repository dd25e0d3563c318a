//! Images of a batch that an attack is done with stop costing passes.

use burn::tensor::{Int, Tensor, TensorData};
use fireproof_tensor::{Result, Victim};

use crate::host::floats;

/// The images of a batch that still go through the victim.
///
/// The rest of an attack (its objective's memory, momenta, step sizes, the best iterate so far) keeps seeing the whole batch: rows
/// of done images show their last logits and a gradient of zero. An image's logits and gradient never depend on its neighbours, so
/// the others get the numbers that they would have got beside them; on Flex, the same bits. A victim that must see the whole
/// batch ([`Victim::is_positional`]) does, and the passes of done images are made in vain.
#[derive(Clone, Default)]
pub(crate) struct Compact {
    done: Option<Done>,
}

#[derive(Clone)]
struct Done {
    /// Positions in the batch of the images that go on, ascending.
    open: Vec<usize>,
    /// Positions of the others, ascending.
    closed: Vec<usize>,
    /// Their last logits, `[closed, K, H, W]`.
    logits: Tensor<4>,
}

impl Compact {
    /// True once no image goes on.
    pub(crate) fn is_empty(&self) -> bool {
        self.done.as_ref().is_some_and(|done| done.open.is_empty())
    }

    /// Only the `open` images go on; `logits` `[N, K, H, W]` are those of the last pass.
    pub(crate) fn only(open: &[bool], logits: &Tensor<4>) -> Self {
        let (open, closed): (Vec<usize>, Vec<usize>) = (0..open.len()).partition(|&at| open[at]);
        let done = (!closed.is_empty()).then(|| Done { logits: rows(logits, &closed), open, closed });
        Self { done }
    }

    /// Takes out every image whose `score` `[N]` has reached `ceiling`; `logits` `[N, K, H, W]` are those of the last pass. Waits
    /// for the device.
    pub(crate) fn close(&mut self, score: &Tensor<1>, ceiling: f32, logits: &Tensor<4>) {
        let score = floats(score.clone());
        let known = self.done.as_ref().map_or(&[][..], |done| &done.closed);
        let is_done = |at: &usize| score[*at] >= ceiling || known.contains(at);
        let (closed, open): (Vec<usize>, Vec<usize>) = (0..score.len()).partition(is_done);
        let known = known.len();
        if closed.len() > known {
            let logits = rows(logits, &closed);
            self.done = Some(Done { open, closed, logits });
        }
    }

    /// Logits `[N, K, H, W]` of all images, after a pass of those that go on.
    pub(crate) fn logits(&self, victim: &dyn Victim, images: &Tensor<4>) -> Result<Tensor<4>> {
        match &self.done {
            None => victim.logits(images.clone()),
            Some(done) if done.open.is_empty() => Ok(done.logits.clone()),
            Some(done) if victim.is_positional() => {
                Ok(done.join(rows(&victim.logits(images.clone())?, &done.open), done.logits.clone()))
            }
            Some(done) => Ok(done.join(victim.logits(rows(images, &done.open))?, done.logits.clone())),
        }
    }

    /// [`Victim::pull_back`] of the images that go on; the cotangent sees and gives all rows.
    pub(crate) fn pull_back(
        &self,
        victim: &dyn Victim,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let Some(done) = &self.done else { return victim.pull_back(images, cotangent) };
        let mut whole = None;
        if victim.is_positional() {
            let (_, gradient) = victim.pull_back(images, &mut |logits| {
                let all = done.join(rows(&logits, &done.open), done.logits.clone());
                whole = Some(all.clone());
                cotangent(all)
            })?;
            let logits = whole.expect("a victim's pull_back asks for the gradient at its logits");
            let still = rows(&gradient, &done.open);
            return Ok((logits, done.join(still, rows(&gradient, &done.closed).zeros_like())));
        }
        let (_, gradient) = victim.pull_back(rows(&images, &done.open), &mut |logits| {
            let all = done.join(logits, done.logits.clone());
            whole = Some(all.clone());
            Ok(rows(&cotangent(all)?, &done.open))
        })?;
        let logits = whole.expect("a victim's pull_back asks for the gradient at its logits");
        let [_, c, h, w] = gradient.dims();
        let zeros = Tensor::zeros([done.closed.len(), c, h, w], &gradient.device());
        Ok((logits, done.join(gradient, zeros)))
    }
}

impl Done {
    /// The batch's order from the rows that go on and those that do not.
    fn join(&self, open: Tensor<4>, closed: Tensor<4>) -> Tensor<4> {
        let mut places: Vec<usize> = vec![0; self.open.len() + self.closed.len()];
        self.open.iter().chain(&self.closed).enumerate().for_each(|(from, &to)| places[to] = from);
        rows(&Tensor::cat(vec![open, closed], 0), &places)
    }
}

fn rows(x: &Tensor<4>, positions: &[usize]) -> Tensor<4> {
    let indices: Vec<i32> = positions.iter().map(|&at| at as i32).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [positions.len()]), &x.device());
    x.clone().select(0, indices)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use fireproof_tensor::{Affine, Batch, Counted, InUnit, Passes, Unit, victim};

    use super::*;

    fn tensor(values: &[f32]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1, 1, 1]), &Device::flex())
    }

    fn read(x: Tensor<4>) -> Vec<f32> {
        floats(x.flatten::<1>(0, 3))
    }

    #[test]
    fn a_victim_that_knows_each_image_of_the_batch_sees_them_all() {
        let mut batch =
            Batch::from_host(vec![0.1, 0.2, 0.3], &[0; 3], [3, 1, 1, 1], vec![0, 1, 2], &Device::flex()).unwrap();
        let column = |values: [f32; 3]| tensor(&values).reshape([3, 1]);
        batch.affine = Some(Affine { mean: column([0.0; 3]), std: column([1.0, 0.5, 0.25]) });
        let same = victim(|x: Tensor<4>| x);
        let scaled = InUnit::new(&same, &batch, Unit::Pixel, Unit::Normalised).unwrap();
        let counted = Counted::new(&scaled);
        assert!(counted.is_positional() && !same.is_positional());
        let mut compact = Compact::default();
        let first = compact.logits(&counted, &batch.images).unwrap();
        compact.close(&Tensor::<1>::from_floats([0.0, 1.0, 0.0], &Device::flex()), 1.0, &first);
        let moved = tensor(&[1.0, 1.0, 1.0]);
        assert_eq!(read(compact.logits(&counted, &moved).unwrap()), [1.0, 0.4, 4.0]);
        let (logits, gradient) = compact.pull_back(&counted, moved, &mut |z| Ok(z.ones_like())).unwrap();
        assert_eq!((read(logits), read(gradient)), (vec![1.0, 0.4, 4.0], vec![1.0, 0.0, 4.0]));
    }

    #[test]
    fn images_that_are_done_make_no_pass_keep_their_logits_and_have_no_gradient() {
        let square = victim(|x: Tensor<4>| x.clone() * x);
        let counted = Counted::new(&square);
        let mut compact = Compact::default();
        let first = compact.logits(&counted, &tensor(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        let score = |values: [f32; 4]| Tensor::<1>::from_floats(values, &Device::flex());
        compact.close(&score([0.5, 1.0, 0.9, 1.0]), 1.0, &first);
        assert!(!compact.is_empty());
        let moved = tensor(&[5.0, 6.0, 7.0, 8.0]);
        let (logits, gradient) = compact.pull_back(&counted, moved.clone(), &mut |z| Ok(z.ones_like())).unwrap();
        assert_eq!(read(logits), [25.0, 4.0, 49.0, 16.0]);
        assert_eq!(read(gradient), [10.0, 0.0, 14.0, 0.0]);
        let logits = compact.logits(&counted, &moved).unwrap();
        assert_eq!(counted.passes(), Passes { forward: 8, backward: 2 });
        compact.close(&score([1.0, 1.0, 1.0, 1.0]), 1.0, &logits);
        assert!(compact.is_empty());
        assert_eq!(read(compact.logits(&counted, &moved).unwrap()), [25.0, 4.0, 49.0, 16.0]);
        assert_eq!(counted.passes().forward, 8, "nobody is left");
    }
}
