//! Weight files: what is read, what is reported, what is refused and with which words.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use fireproof_models::{Architecture, Network, Overrides, Parameter, Taps, build, load, load_backbone, save};
use safetensors::{Dtype, tensor::TensorView};

use crate::common::{architectures, device, golden, host, images, lively, small_unet};

/// A folder of this test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes tensors without our metadata, or with the given text as it.
fn write(path: &Path, parameters: &[Parameter], metadata: Option<&str>) {
    let bytes: Vec<Vec<u8>> =
        parameters.iter().map(|p| p.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = parameters.iter().zip(&bytes);
    let views = views.map(|(p, b)| (p.name.clone(), TensorView::new(Dtype::F32, p.shape.clone(), b).unwrap()));
    let metadata = metadata.map(|text| HashMap::from([("fireproof".to_string(), text.to_string())]));
    std::fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

fn refusal(path: &Path, overrides: &Overrides) -> String {
    match load(path, overrides, &device()) {
        Ok(_) => panic!("{} should have been refused", path.display()),
        Err(error) => error.to_string(),
    }
}

fn parameters() -> Vec<Parameter> {
    lively(&small_unet()).parameters()
}

/// The small U-Net's parameters in a file, changed by `change`.
fn changed(folder: &Path, change: impl FnOnce(&mut Vec<Parameter>)) -> PathBuf {
    let mut values = parameters();
    change(&mut values);
    let path = folder.join("weights.safetensors");
    write(&path, &values, None);
    path
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit_for_every_network() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    for mut architecture in architectures() {
        architecture.classes[0] = "Straße \"1\"".into();
        architecture.normalisation.mean = vec![0.1, 0.2, 0.3];
        let network = lively(&architecture);
        let extra = BTreeMap::from([("training".to_string(), "pgd3-at".to_string())]);
        save(&*network, &path, &extra).unwrap();
        let first = std::fs::read(&path).unwrap();
        save(&*network.deep_clone(), &path, &extra).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap(), "equal networks give equal files");
        let loaded = load(&path, &Overrides::default(), &device()).unwrap();
        assert_eq!(loaded.network.architecture(), &architecture);
        assert_eq!(loaded.network.parameters(), network.parameters());
        assert!(loaded.report.described && loaded.report.unused.is_empty());
        assert_eq!(loaded.report.extra, extra);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn files_without_metadata_are_recognised_for_every_network() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    for architecture in architectures() {
        let network = lively(&architecture);
        write(&path, &network.parameters(), None);
        let first = architecture.options.get("dilate_first").copied().unwrap_or(1);
        let mut overrides = Overrides::default();
        if first == 0 {
            overrides.options.insert("dilate_first".into(), 0);
        }
        let loaded = load(&path, &overrides, &device()).unwrap();
        assert_eq!(loaded.network.architecture().name, architecture.name);
        assert_eq!(loaded.network.architecture().classes, ["class 0", "class 1", "class 2", "class 3", "class 4"]);
        let auxiliary = loaded.report.unused.iter().all(|name| name.starts_with("aux"));
        assert!(auxiliary, "{:?}", loaded.report.unused);
        let x = images([1, 3, 16, 16], 1);
        let logits = |n: &dyn Network| host(n.forward(x.clone(), &mut Taps::eval()).logits);
        assert_eq!(logits(&*loaded.network), logits(&*network), "{}", architecture.name);
        if architecture.options.get("auxiliary") == Some(&1) {
            overrides.options.insert("auxiliary".into(), 1);
            let loaded = load(&path, &overrides, &device()).unwrap();
            assert_eq!(loaded.network.parameters(), network.parameters());
        }
    }
}

#[test]
fn wrappers_of_training_scripts_are_taken_off() {
    let folder = folder();
    let path = changed(folder.path(), |values| {
        for p in values.iter_mut() {
            p.name = format!("state_dict.module.{}", p.name);
        }
        values.push(Parameter { name: "optimizer.momentum".into(), ..values[0].clone() });
    });
    let loaded = load(&path, &Overrides::default(), &device()).unwrap();
    assert_eq!(loaded.report.unused, ["optimizer.momentum"]);
    assert_eq!(loaded.network.parameters(), parameters());
}

#[test]
fn unknown_names_are_listed_and_not_fatal() {
    let folder = folder();
    let path = changed(folder.path(), |values| {
        values.push(Parameter {
            name: "down.0.1.num_batches_tracked".into(),
            shape: vec![1],
            values: vec![3.0],
            ..values[0].clone()
        });
    });
    let loaded = load(&path, &Overrides::default(), &device()).unwrap();
    assert_eq!(loaded.report.unused, ["down.0.1.num_batches_tracked"]);
}

#[test]
fn every_missing_and_misshapen_parameter_is_listed() {
    let folder = folder();
    let path = changed(folder.path(), |values| {
        values.retain(|p| p.name != "down.1.1.bias");
        let wrong = values.iter_mut().find(|p| p.name == "merge.0.0.weight").unwrap();
        wrong.shape.reverse();
    });
    let message = refusal(&path, &Overrides::default());
    assert!(message.contains("weights.safetensors does not fit model 'unet': 2 problems"), "{message}");
    assert!(message.contains("'down.1.1.bias' [8] is missing"), "{message}");
    assert!(message.contains("'merge.0.0.weight' has shape [3, 3, 16, 8], expected [8, 16, 3, 3]"), "{message}");
}

#[test]
fn a_network_that_lacks_the_very_parameters_it_is_known_by_is_told_what_it_lacks() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    let lacking = |name: &str, gone: &[&str], reversed: &str| {
        let mut architecture = Architecture::new(name, &["a", "b", "c", "d"].map(String::from)).unwrap();
        architecture.options.insert("auxiliary".into(), 0);
        let mut values = build(&architecture, 0, &device()).unwrap().parameters();
        values.retain(|p| !gone.contains(&p.name.as_str()));
        values.iter_mut().find(|p| p.name == reversed).unwrap().shape.reverse();
        write(&path, &values, None);
        refusal(&path, &Overrides::default())
    };
    let message = lacking("pspnet-resnet18", &["cls.0.weight", "layer2.0.conv1.weight"], "cls.4.weight");
    for part in [
        "does not fit model 'pspnet-resnet18': 3 problems",
        "'cls.0.weight' [128, 1024, 3, 3] is missing",
        "'layer2.0.conv1.weight' [128, 64, 3, 3] is missing",
        "'cls.4.weight' has shape [1, 1, 128, 4], expected [4, 128, 1, 1]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let message = lacking("deeplabv3-resnet18", &["backbone.conv1.weight", "classifier.4.bias"], "classifier.4.weight");
    assert!(message.contains("does not fit model 'deeplabv3-resnet18': 3 problems"), "{message}");
}

#[test]
fn parameters_that_do_not_fit_leave_the_network_as_it_was() {
    let mut network = build(&small_unet(), 0, &device()).unwrap();
    let before = network.parameters();
    let mut wrong = parameters();
    wrong.pop();
    wrong[3].values.pop();
    wrong.push(Parameter { name: "tail.weight".into(), ..wrong[0].clone() });
    let message = network.set_parameters(&wrong).unwrap_err().to_string();
    for part in ["'head.bias' [5] is missing", "values for shape", "'tail.weight' is not a parameter"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(before, network.parameters());
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    write(&path, &parameters(), Some(r#"{"version": 2, "architecture": "something else entirely"}"#));
    let message = refusal(&path, &Overrides::default());
    assert!(message.contains("format version 2, written by a newer fireproof; expected version 1"), "{message}");
}

#[test]
fn metadata_that_is_not_ours_or_absurd_is_refused_before_memory_is_taken() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    let described = |change: fn(&mut Architecture)| {
        let mut architecture = small_unet();
        change(&mut architecture);
        format!(r#"{{"version": 1, "architecture": {}}}"#, serde_json::to_string(&architecture).unwrap())
    };
    let cases = [
        ("{".to_string(), "metadata 'fireproof'"),
        (described(|a| a.name = "vnet".into()), "unknown model 'vnet': expected one of unet, nnunet, cnn, espnet,"),
        (
            described(|a| _ = a.options.insert("base".into(), 1 << 40)),
            "option 'base' is 1099511627776, expected 1 to 1024",
        ),
        (described(|a| _ = a.options.insert("depth".into(), 1)), "option is 'depth', expected one of: base, levels"),
        (described(|a| a.classes.clear()), "number of classes is 0"),
        (described(|a| a.normalisation.std[1] = 0.0), "std is 0, expected positive numbers"),
        (described(|a| a.normalisation.mean.truncate(2)), "mean is 2 values, expected 3"),
        // A U-Net of 12 billion parameters by the options, of 8 thousand by the tensors.
        (described(|a| a.options.extend([("base".into(), 1024), ("levels".into(), 8)])), "does not fit model 'unet'"),
    ];
    for (metadata, expected) in cases {
        write(&path, &parameters(), Some(&metadata));
        let message = refusal(&path, &Overrides::default());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn damaged_and_foreign_files_are_refused_by_name() {
    let folder = folder();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(golden("unet_base4.pth")).unwrap();
    save(&*lively(&small_unet()), folder.path().join("whole.safetensors"), &BTreeMap::new()).unwrap();
    let safetensors = std::fs::read(folder.path().join("whole.safetensors")).unwrap();
    let mut huge_header = safetensors.clone();
    huge_header[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    let files = [
        at("empty.pth", b""),
        at("text.pth", b"these are not weights"),
        at("half.pth", &whole[..whole.len() / 2]),
        at("half.safetensors", &safetensors[..safetensors.len() / 2]),
        at("huge.safetensors", &huge_header),
        folder.path().to_path_buf(),
        folder.path().join("absent.pth"),
    ];
    for path in files {
        let message = refusal(&path, &Overrides::default());
        assert!(message.starts_with(&path.display().to_string()), "{message}");
    }
}

#[test]
fn weights_of_another_network_are_not_guessed_at() {
    let folder = folder();
    let path = changed(folder.path(), |values| values.iter_mut().for_each(|p| p.name = format!("net.{}", p.name)));
    let message = refusal(&path, &Overrides::default());
    assert!(message.contains("tensors of no known layout (net.down.0.0.weight"), "{message}");
    assert!(message.contains("expected weights of one of: unet, nnunet, cnn, espnet"), "{message}");
    let named = |name: &str| Overrides { name: Some(name.into()), ..Overrides::default() };
    assert!(refusal(&path, &named("unet")).contains("weights of one of: unet"));
    assert!(refusal(&path, &named("vnet")).contains("unknown model 'vnet'"));
    save(&*lively(&small_unet()), &path, &BTreeMap::new()).unwrap();
    assert!(refusal(&path, &named("espnet")).contains("the weights are of model 'unet'; expected 'espnet'"));
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let folder = folder();
    let path = changed(folder.path(), |values| values[0].values[1] = f32::NAN);
    let message = refusal(&path, &Overrides::default());
    assert!(message.contains("'down.0.0.weight' has 1 of 108 values that are not finite"), "{message}");
}

#[test]
fn overrides_name_classes_and_normalisation() {
    let folder = folder();
    let path = changed(folder.path(), |_| ());
    let classes: Vec<String> = ["road", "sky", "car", "tree", "sign"].map(String::from).into();
    let overrides = Overrides {
        classes: Some(classes.clone()),
        mean: Some(vec![0.5; 3]),
        std: Some(vec![0.25; 3]),
        ..Overrides::default()
    };
    let loaded = load(&path, &overrides, &device()).unwrap();
    assert_eq!(loaded.network.architecture().classes, classes);
    assert_eq!(loaded.network.architecture().normalisation.mean, [0.5; 3]);
    assert_eq!(loaded.network.architecture().normalisation.std, [0.25; 3]);
    let overrides = Overrides { classes: Some(classes[..4].to_vec()), ..overrides };
    assert!(refusal(&path, &overrides).contains("the head has 5 classes; expected 4"));
}

#[test]
fn half_precision_files_are_read() {
    let folder = folder();
    let path = folder.path().join("weights.safetensors");
    let values = parameters();
    // bfloat16 is the upper half of a single-precision number.
    let halves: Vec<Vec<u8>> = values
        .iter()
        .map(|p| p.values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect())
        .collect();
    let views = values.iter().zip(&halves);
    let views = views.map(|(p, b)| (p.name.clone(), TensorView::new(Dtype::BF16, p.shape.clone(), b).unwrap()));
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let loaded = load(&path, &Overrides::default(), &device()).unwrap().network.parameters();
    let truncated = |v: &f32| f32::from_bits(v.to_bits() & 0xffff_0000);
    for (found, expected) in loaded.iter().zip(&values) {
        assert_eq!(found.values, expected.values.iter().map(truncated).collect::<Vec<_>>());
    }
}

#[test]
fn a_classifiers_weights_fill_the_backbone_only() {
    let folder = folder();
    let path = folder.path().join("resnet18.safetensors");
    let all = architectures();
    let mut classifier = Vec::new();
    for p in lively(&all[4]).parameters() {
        if let Some(name) = p.name.strip_prefix("backbone.") {
            classifier.push(Parameter { name: name.to_string(), ..p.clone() });
        }
    }
    classifier.push(Parameter {
        name: "fc.bias".into(),
        shape: vec![2],
        values: vec![0.0; 2],
        ..classifier[0].clone()
    });
    write(&path, &classifier, None);
    for architecture in [&all[2], &all[4]] {
        let mut network = build(architecture, 9, &device()).unwrap();
        let before = network.parameters();
        let report = load_backbone(&mut *network, &path).unwrap();
        assert_eq!(report.unused, ["fc.bias"]);
        for (before, after) in before.iter().zip(network.parameters()) {
            let name = after.name.replace("layer0.0", "conv1").replace("layer0.1", "bn1").replace("backbone.", "");
            match classifier.iter().find(|p| p.name == name) {
                Some(given) => assert_eq!(given.values, after.values, "{name}"),
                None => assert_eq!(before.values, after.values, "{name} is not of the backbone"),
            }
        }
    }
    let mut deep = build(&all[3], 0, &device()).unwrap();
    assert!(
        load_backbone(&mut *deep, &path).unwrap_err().to_string().contains("'conv2.weight' [64, 64, 3, 3] is missing")
    );
    let mut unet = build(&all[0], 0, &device()).unwrap();
    assert!(load_backbone(&mut *unet, &path).unwrap_err().to_string().contains("backbone is no ResNet"));
}
