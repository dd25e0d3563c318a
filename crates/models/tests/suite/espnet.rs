//! ESPNet's published CamVid weights against the reference's answers.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use fireproof_models::{Loaded, Overrides, Taps, load};
use fireproof_tensor::{Targets, VOID, Victim, ops};
use safetensors::SafeTensors;

use crate::common::{Answers, device, host, relative, shared};

fn victim_files() -> Option<(Loaded, Answers, Targets)> {
    let folder = shared("victims/espnet-camvid")?;
    let loaded = load(folder.join("espnet_p_2_q_8_camvid.pth"), &Overrides::default(), &device()).unwrap();
    let golden = folder.join("golden_small.safetensors");
    let bytes = std::fs::read(&golden).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let targets = Targets::from_labels(tensors.tensor("labels").unwrap().data(), [1, 120, 160], &device()).unwrap();
    Some((loaded, Answers::read(&golden), targets))
}

#[test]
fn the_published_file_is_read_as_it_is() {
    let Some((loaded, ..)) = victim_files() else { return };
    let architecture = loaded.network.architecture();
    assert_eq!((architecture.name.as_str(), architecture.classes.len()), ("espnet", 12));
    assert_eq!((architecture.option("p"), architecture.option("q")), (2, 8));
    assert!(loaded.report.unused.is_empty(), "{:?}", loaded.report.unused);
    assert_eq!(loaded.network.layout().len(), 189);
}

#[test]
fn logits_and_activations_agree_with_the_reference() {
    let Some((loaded, answers, _)) = victim_files() else { return };
    let sites = [
        ("level1", "level1"),
        ("b1", "b1"),
        ("level2", "level2.1"),
        ("b2", "b2"),
        ("level3", "level3.7"),
        ("b3", "b3"),
        ("combine", "combine"),
        ("fuse", "conv"),
    ];
    let mut taps = sites.iter().fold(Taps::eval(), |taps, (site, _)| taps.record(site));
    let x = answers.tensor("images");
    let logits = host(loaded.network.forward(x.clone(), &mut taps).logits);
    for (site, name) in sites {
        let error = relative(&host(taps.recorded(site).unwrap().clone()), answers.values(&format!("act.{name}")));
        assert!(error < 1e-5, "{site}: {error}");
    }
    let folded = host(loaded.network.victim().logits(x).unwrap());
    for logits in [logits, folded] {
        let error = relative(&logits, answers.values("logits"));
        assert!(error < 1e-5, "logits: {error}");
    }
}

#[test]
fn the_gradient_agrees_with_the_reference() {
    let Some((loaded, answers, targets)) = victim_files() else { return };
    let valid = host(targets.valid_pixels())[0];
    let mut loss = 0.0;
    let (_, gradient) = loaded
        .network
        .victim()
        .pull_back(answers.tensor("images"), &mut |logits| {
            let fused = ops::weighted_cross_entropy(&logits, &targets, None);
            loss = host(fused.loss.sum())[0] / valid;
            Ok(fused.gradient / valid)
        })
        .unwrap();
    assert!((loss - 0.747_681_7).abs() < 1e-5, "{loss}");
    let gradient = host(gradient);
    let expected = answers.values("grad");
    let error = relative(&gradient, expected);
    let signs = gradient.iter().zip(expected).filter(|(a, b)| a.signum() == b.signum()).count();
    assert!(error < 1e-4, "{error}");
    assert!(signs as f64 > 0.9999 * gradient.len() as f64, "{signs} signs of {}", gradient.len());
}

/// Sign steps of 0.01 in the ball of 8/255, as the reference takes them.
fn attacked(victim: &dyn Victim, answers: &Answers, targets: &Targets, attack: &str, steps: usize) -> Tensor<4> {
    let clean = answers.tensor("images");
    let epsilon = 8.0 / 255.0;
    let mut x = answers.tensor("start");
    for step in 0..steps {
        let mut weigh = |logits: Tensor<4>| {
            let [n, classes, h, w] = logits.dims();
            let weights = match attack {
                "pgd" => targets.valid().clone(),
                "segpgd" => {
                    let lambda = step as f64 / (2 * steps) as f64;
                    targets.correct(&logits) * (1.0 - 2.0 * lambda) + lambda
                }
                _ => {
                    let p = burn::tensor::activation::softmax(logits.clone(), 1);
                    let own = (p.clone() * targets.one_hot(classes)).sum_dim(1);
                    (own / (p.clone() * p).sum_dim(1).sqrt()).reshape([n, h, w])
                }
            };
            Ok(ops::weighted_cross_entropy(&logits, targets, Some(&weights)).gradient)
        };
        let (_, gradient) = victim.pull_back(x.clone(), &mut weigh).unwrap();
        let delta = (x + gradient.sign() * 0.01 - clean.clone()).clamp(-epsilon, epsilon);
        x = (clean.clone() + delta).clamp(0.0, 1.0);
    }
    x
}

#[test]
fn adversarial_images_agree_with_the_reference() {
    let Some((loaded, answers, targets)) = victim_files() else { return };
    let victim = loaded.network.victim();
    // A pixel whose two largest logits are within rounding of each other is correct or not by the algorithm of the sum,
    // and SegPGD's weight of it follows; so values are compared with the direct sum, in a process of its own.
    let direct = std::env::var("FIREPROOF_WINOGRAD").is_ok_and(|limit| limit == "never");
    if !direct {
        let myself = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "espnet::adversarial_images_agree_with_the_reference", "--nocapture"])
            .env("FIREPROOF_WINOGRAD", "never")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&myself.stdout);
        assert!(myself.status.success() && said.contains("cospgd-10"), "{said}");
    }
    let share = |share: f64| if direct { share } else { 0.9 };
    // After ten steps rounding decides most values (the reference's own float64 run shares a third to all of them), so
    // only the accuracy is compared.
    let cases = [
        ("pgd", 3, share(0.9999), 0.689_882),
        ("segpgd", 3, share(0.999), 0.106_630),
        ("cospgd", 3, share(0.99), 0.020_030),
        ("pgd", 10, 0.0, 0.010_366),
        ("segpgd", 10, 0.0, 0.022_622),
        ("cospgd", 10, 0.0, 0.0),
    ];
    for (attack, steps, share, accuracy) in cases {
        let x = attacked(&victim, &answers, &targets, attack, steps);
        let expected = answers.values(&format!("adv_{attack}_{steps}"));
        let found = host(x.clone());
        let equal = found.iter().zip(expected).filter(|(a, b)| (*a - *b).abs() < 1e-4).count();
        let equal = equal as f64 / expected.len() as f64;
        let pixels = targets.accuracy(&victim.logits(x).unwrap())[0];
        println!("{attack}-{steps}: {:.4} % equal, pixel accuracy {pixels:.6}", 100.0 * equal);
        assert!(equal >= share, "{attack}-{steps}: only {equal} equal");
        assert!((pixels - accuracy).abs() < 0.005, "{attack}-{steps}: accuracy {pixels}, expected {accuracy}");
    }
}

fn png(path: &Path) -> (usize, usize, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.height as usize, info.width as usize, pixels)
}

#[test]
fn the_clean_score_of_ten_frames_is_the_readmes() {
    let (Some((loaded, ..)), Some(data)) = (victim_files(), shared("data/camvid")) else { return };
    let victim = loaded.network.victim();
    let list = std::fs::read_to_string(data.join("lists/test.txt")).unwrap();
    let mut confusion = vec![[0u64; 12]; 11];
    for name in list.lines().take(10) {
        let (h, w, pixels) = png(&data.join("test/images").join(name));
        let (.., labels) = png(&data.join("test/masks").join(name));
        let planes = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|&v| f32::from(v) / 255.0)).collect();
        let x = Tensor::<4>::from_data(TensorData::new::<f32, _>(planes, [1, 3, h, w]), &device());
        let predicted = victim.logits(x).unwrap().argmax(1).into_data().convert::<i32>().try_to_vec::<i32>().unwrap();
        for (&label, prediction) in labels.iter().zip(predicted) {
            if label < 11 && label != VOID {
                confusion[label as usize][prediction as usize] += 1;
            }
        }
    }
    let total: u64 = confusion.iter().flatten().sum();
    let right: u64 = (0..11).map(|k| confusion[k][k]).sum();
    let iou = |k: usize| {
        let union =
            confusion[k].iter().sum::<u64>() + confusion.iter().map(|row| row[k]).sum::<u64>() - confusion[k][k];
        confusion[k][k] as f64 / union as f64
    };
    let miou = 100.0 * (0..11).map(iou).sum::<f64>() / 11.0;
    let accuracy = 100.0 * right as f64 / total as f64;
    println!("mIoU {miou:.2}, pixel accuracy {accuracy:.2}");
    assert!((miou - 56.75).abs() < 0.1, "mIoU {miou}");
    assert!((accuracy - 84.53).abs() < 0.1, "pixel accuracy {accuracy}");
}
