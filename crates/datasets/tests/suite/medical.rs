//! NIfTI volumes, the decathlon's layout, slices with their volumes: read, written, and every kind of bad input.

use std::{io::Write, path::PathBuf};

use fireproof_datasets::{
    Dataset, Error, Manifest, Options, Split, Subset, VOID, check, open,
    read::{Limits, msd, nifti},
    volume::{Scan, write_labels},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::Toy;

/// A NIfTI file as a test wants it: header fields that matter, then voxels, byte by byte.
#[derive(Clone)]
struct Nifti {
    extents: Vec<i16>,
    code: i16,
    bits: i16,
    sform: Option<[[f32; 4]; 3]>,
    pixdim: [f32; 4],
    offset: f32,
    scaling: [f32; 2],
    big_endian: bool,
    magic: [u8; 4],
    voxels: Vec<u8>,
}

impl Nifti {
    fn new(extents: &[i16], code: i16, bits: i16, voxels: Vec<u8>) -> Self {
        Self {
            extents: extents.to_vec(),
            code,
            bits,
            sform: Some([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
            pixdim: [1.0; 4],
            offset: 352.0,
            scaling: [1.0, 0.0],
            big_endian: false,
            magic: *b"n+1\0",
            voxels,
        }
    }

    fn bytes(extents: &[i16], voxels: Vec<u8>) -> Self {
        Self::new(extents, 2, 8, voxels)
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0u8; 352];
        let mut put = |at: usize, mut bytes: Vec<u8>| {
            if self.big_endian {
                bytes.reverse();
            }
            content[at..at + bytes.len()].copy_from_slice(&bytes);
        };
        put(0, 348i32.to_le_bytes().to_vec());
        put(40, (self.extents.len() as i16).to_le_bytes().to_vec());
        for (axis, extent) in self.extents.iter().enumerate() {
            put(42 + 2 * axis, extent.to_le_bytes().to_vec());
        }
        put(70, self.code.to_le_bytes().to_vec());
        put(72, self.bits.to_le_bytes().to_vec());
        for (index, step) in self.pixdim.iter().enumerate() {
            put(76 + 4 * index, step.to_le_bytes().to_vec());
        }
        put(108, self.offset.to_le_bytes().to_vec());
        put(112, self.scaling[0].to_le_bytes().to_vec());
        put(116, self.scaling[1].to_le_bytes().to_vec());
        put(123, vec![2]);
        if let Some(rows) = self.sform {
            put(254, 1i16.to_le_bytes().to_vec());
            for (index, value) in rows.iter().flatten().enumerate() {
                put(280 + 4 * index, value.to_le_bytes().to_vec());
            }
        }
        content[344..348].copy_from_slice(&self.magic);
        content.extend(&self.voxels);
        content
    }

    fn zipped(&self) -> Vec<u8> {
        gzip(&self.content())
    }

    fn read(&self) -> Result<nifti::Volume, Error> {
        nifti::decode("v.nii".as_ref(), &self.content(), &Limits::default())
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The error's text, which must hold all the parts.
fn says<T>(result: Result<T, Error>, parts: &[&str]) -> String {
    let message = result.err().expect("an error").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    message
}

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

#[test]
fn files_are_read_as_nibabel_reads_them() {
    let cases: Value = serde_json::from_str(include_str!("../reference/nifti.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let hex = case["file"].as_str().unwrap().as_bytes().chunks(2);
        let content: Vec<u8> =
            hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let volume = nifti::decode(name.as_ref(), &content, &Limits::default()).unwrap();
        let header = &volume.header;
        let mut shape = vec![header.width, header.height, header.depth, header.channels];
        shape.truncate(case["shape"].as_array().unwrap().len());
        assert_eq!(json!(shape), case["shape"], "{name}");
        assert_eq!(json!(header.kind.name()), case["kind"], "{name}");
        assert_eq!(json!(header.orientation()), case["orientation"], "{name}");
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{name}: {found}, not {expected}");
            }
        };
        let [z, y, x] = header.spacing;
        close(&[x, y, z], &floats(&case["spacing"]));
        close(&header.affine.concat(), &floats(&case["affine"]));
        let values: Vec<f64> = volume.data.iter().map(|&value| f64::from(value)).collect();
        close(&values, &floats(&case["values"]));
    }
}

/// How a type stores a number.
type Encode = fn(i16) -> Vec<u8>;

#[test]
fn every_type_and_byte_order_gives_the_same_numbers() {
    let numbers = [3i16, 0, 1, 100, 127, 2];
    let stored: [(i16, i16, Encode); 10] = [
        (2, 8, |v| (v as u8).to_le_bytes().to_vec()),
        (256, 8, |v| (v as i8).to_le_bytes().to_vec()),
        (4, 16, |v| v.to_le_bytes().to_vec()),
        (512, 16, |v| (v as u16).to_le_bytes().to_vec()),
        (8, 32, |v| i32::from(v).to_le_bytes().to_vec()),
        (768, 32, |v| (v as u32).to_le_bytes().to_vec()),
        (1024, 64, |v| i64::from(v).to_le_bytes().to_vec()),
        (1280, 64, |v| (v as u64).to_le_bytes().to_vec()),
        (16, 32, |v| f32::from(v).to_le_bytes().to_vec()),
        (64, 64, |v| f64::from(v).to_le_bytes().to_vec()),
    ];
    for (code, bits, encode) in stored {
        for big_endian in [false, true] {
            let order = |mut bytes: Vec<u8>| {
                if big_endian {
                    bytes.reverse();
                }
                bytes
            };
            let voxels = numbers.iter().flat_map(|&value| order(encode(value))).collect();
            let file = Nifti { big_endian, scaling: [2.0, -5.0], ..Nifti::new(&[3, 1, 2], code, bits, voxels) };
            let volume = file.read().unwrap();
            assert_eq!(volume.data, numbers.map(|value| f32::from(value) * 2.0 - 5.0), "type {code}, {big_endian}");
            assert_eq!(nifti::decode("v.gz".as_ref(), &file.zipped(), &Limits::default()).unwrap(), volume);
        }
    }
}

#[test]
fn without_a_form_the_voxel_size_places_the_volume() {
    let file = Nifti { sform: None, pixdim: [1.0, 0.5, 2.0, 0.0], ..Nifti::bytes(&[2, 2], vec![1; 4]) };
    let header = file.read().unwrap().header;
    assert_eq!((header.depth, header.spacing, header.orientation().as_str()), (1, [1.0, 2.0, 0.5], "RAS"));
}

#[test]
fn extensions_before_the_voxels_are_skipped() {
    let mut voxels = vec![9u8; 16];
    voxels.extend([1, 2]);
    assert_eq!(Nifti { offset: 368.0, ..Nifti::bytes(&[2, 1, 1], voxels) }.read().unwrap().data, [1.0, 2.0]);
}

#[test]
fn headers_that_are_none_or_cannot_be_are_refused_by_name() {
    let good = Nifti::bytes(&[2, 2, 1], vec![0; 4]);
    good.read().unwrap();
    let bad = |change: &dyn Fn(&mut Nifti), parts: &[&str]| {
        let mut file = good.clone();
        change(&mut file);
        let message = says(file.read(), parts);
        assert!(message.starts_with("v.nii: found ") && message.contains(", expected "), "{message}");
    };
    bad(&|file| file.magic = *b"ni1\0", &["voxels lie in another file (.img)", "a NIfTI-1 volume"]);
    bad(&|file| file.magic = [0; 4], &["the magic [00, 00, 00, 00] at byte 344"]);
    bad(&|file| file.extents = vec![], &["0 axes, expected 1 to 4 axes"]);
    bad(&|file| file.extents = vec![2, 0, 2], &["the extents [2, 0, 2]"]);
    bad(&|file| file.extents = vec![2, -2, 1], &["the extents [2, -2, 1]"]);
    bad(&|file| file.extents = vec![2, 1, 1, 1, 2], &["the extents [2, 1, 1, 1, 2], expected 1 to 4 axes"]);
    bad(&|file| file.code = 128, &["data type 128, expected integers or floating-point numbers"]);
    bad(&|file| file.bits = 16, &["16 bits a voxel, expected 8, as uint8 has"]);
    for offset in [0.0, 351.0, 352.5, f32::NAN, f32::INFINITY, -1024.0] {
        bad(&|file| file.offset = offset, &[&format!("voxels from byte {offset}")]);
    }
    bad(&|file| file.scaling = [f32::INFINITY, 0.0], &["the scaling inf, 0, expected finite numbers"]);
    bad(&|file| file.scaling = [1.0, f32::NAN], &["the scaling 1, NaN"]);
    bad(&|file| file.sform = Some([[0.0; 4]; 3]), &["the affine", "from its sform", "voxels of 1e-6 to 1e6 mm"]);
    bad(&|file| file.sform = Some([[f32::NAN; 4]; 3]), &["from its sform"]);
    bad(&|file| (file.sform, file.pixdim) = (None, [1.0, 0.0, 1.0, 1.0]), &["from its voxel size"]);
    let parse = |content: &[u8]| nifti::decode("v.nii".as_ref(), content, &Limits::default());
    says(parse(&[]), &["v.nii: found a broken or short file"]);
    says(parse(b"PK\x03\x04 and so on".repeat(40).as_slice()), &["the first bytes [50, 4b, 03, 04]"]);
    says(parse([0x1c, 2, 0, 0].repeat(100).as_slice()), &["a NIfTI-2 header, expected a NIfTI-1 volume"]);
}

#[test]
fn unscaled_volumes_may_say_so_with_zero_or_with_no_number() {
    for slope in [0.0, f32::NAN] {
        let file = Nifti { scaling: [slope, 3.0], ..Nifti::bytes(&[2], vec![5, 7]) };
        assert_eq!(file.read().unwrap().data, [5.0, 7.0]);
    }
}

#[test]
fn truncated_or_longer_volumes_are_refused_at_every_length() {
    let file = Nifti::new(&[3, 2, 2], 4, 16, vec![7; 24]);
    let (plain, zipped) = (file.content(), file.zipped());
    for length in 0..plain.len() {
        says(nifti::decode("v.nii".as_ref(), &plain[..length], &Limits::default()), &["v.nii: found "]);
    }
    for length in 0..zipped.len() {
        says(nifti::decode("v.gz".as_ref(), &zipped[..length], &Limits::default()), &["v.gz: found "]);
    }
    let longer = [plain.as_slice(), &[0]].concat();
    says(
        nifti::decode("v.nii".as_ref(), &longer, &Limits::default()),
        &["found more bytes of voxels, expected 24 as its header (3x2x2x1 of int16) says"],
    );
    // A deflate stream that is whole, and a checksum that is not its own.
    let mut wrong = zipped.clone();
    let end = wrong.len();
    wrong[end - 8] ^= 1;
    says(nifti::decode("v.gz".as_ref(), &wrong, &Limits::default()), &["v.gz: found a broken or short file"]);
    let short = gzip(&plain[..plain.len() - 4]);
    says(nifti::decode("v.gz".as_ref(), &short, &Limits::default()), &["found only 20 bytes of voxels, expected 24"]);
}

#[test]
fn absurd_extents_are_refused_before_memory_is_allocated() {
    // 2^60 voxels of 8 bytes; the machine would notice.
    let absurd = Nifti::new(&[32767, 32767, 32767, 32767], 64, 64, vec![]);
    says(absurd.read(), &["a header that says 32767x32767 pixels, expected at most 67108864 pixels"]);
    let deep = Nifti::new(&[8000, 8000, 32767, 32767], 64, 64, vec![]);
    says(deep.read(), &["8000x8000x32767x32767 of float64, expected at most 2147483648 bytes"]);
    // Within the limits, but far more than the file can hold, compressed or not.
    let lying = Nifti::new(&[500, 500, 500], 4, 16, vec![0; 100]);
    says(lying.read(), &["a header that says 500x500x500x1 of int16 from byte 352, expected at most the 452 bytes"]);
    says(
        nifti::decode("v.gz".as_ref(), &lying.zipped(), &Limits::default()),
        &["v.gz: found a header that says 500x500x500x1 of int16"],
    );
    says(Nifti { offset: 1e9, ..lying }.read(), &["from byte 1000000000, expected at most the 452 bytes"]);
}

#[test]
fn values_that_are_no_numbers_are_refused_with_their_place() {
    let voxels = [0.0f32, 1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0, 7.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = Nifti::new(&[2, 2, 2], 16, 32, voxels);
    says(file.read(), &["v.nii: found the value NaN at x 1, y 0, z 1, expected finite values"]);
}

#[test]
fn labels_are_written_in_the_place_of_their_scan() {
    let toy = Toy::new(0);
    let affine = [[-0.6, 0.1, 0.0, 90.0], [0.1, -0.6, 0.0, 126.0], [0.0, 0.0, 3.6, -72.0]];
    for (big_endian, name) in [(false, "out.nii"), (true, "out.nii.gz")] {
        let scan = Nifti {
            sform: Some(affine),
            big_endian,
            scaling: [0.5, -3.0],
            ..Nifti::new(&[3, 2, 2], 4, 16, (0..24).collect())
        };
        let scan = scan.read().unwrap();
        let labels: Vec<u8> = (0..12).map(|voxel| voxel % 5).collect();
        let file = toy.path(name);
        write_labels(&file, &scan.header, &labels).unwrap();
        let read = nifti::read(&file, &Limits::default()).unwrap();
        assert_eq!(read.data, labels.iter().map(|&label| f32::from(label)).collect::<Vec<f32>>());
        assert_eq!((read.header.affine, read.header.spacing), (scan.header.affine, scan.header.spacing));
        assert_eq!((read.header.kind, read.header.scaling), (nifti::Kind::Uint8, [1.0, 0.0]));
        assert_eq!(read.header.orientation(), "LPS");
        let content = std::fs::read(&file).unwrap();
        assert_eq!(content.starts_with(&[0x1f, 0x8b]), name.ends_with(".gz"));
        write_labels(&file, &scan.header, &labels).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), content, "equal labels give equal files, an older one is replaced");
        says(
            write_labels(&file, &scan.header, &labels[1..]),
            &["labels: found 11 values, expected 12, for 3x2x2 voxels"],
        );
    }
    let left: Vec<_> = std::fs::read_dir(toy.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    let header = Nifti::bytes(&[1], vec![0]).read().unwrap().header;
    says(
        write_labels(&toy.path("none/out.nii"), &header, &[0]),
        &["none/out.nii: found ", "a file that can be written"],
    );
}

#[test]
fn a_multi_channel_scan_keeps_its_channels_when_labels_are_written() {
    let toy = Toy::new(0);
    let header = Nifti::bytes(&[2, 1, 3, 2], (0..12).collect()).read().unwrap().header;
    write_labels(&toy.path("out.nii"), &header, &[0, 1, 2, 3, 4, 5]).unwrap();
    let read = nifti::read(&toy.path("out.nii"), &Limits::default()).unwrap().header;
    assert_eq!((read.channels, read.depth, read.height, read.width), (1, 3, 1, 2));
}

#[test]
fn a_scan_becomes_the_unit_interval_and_its_z_scores_are_those_of_the_raw_values() {
    let toy = Toy::new(0);
    let raw: Vec<i16> = vec![-1000, 200, 3000, 40, 50, 60, 70, 0];
    let voxels = raw.iter().flat_map(|value| value.to_le_bytes()).collect();
    toy.write("scan.nii", Nifti::new(&[2, 2, 2], 4, 16, voxels).content());
    let scan = Scan::read(&toy.path("scan.nii"), 1, None, &Limits::default()).unwrap();
    let values = [scan.image(0).data, scan.image(1).data].concat();
    assert_eq!((values[0], values[2]), (0.0, 1.0));
    let mean = raw.iter().map(|&v| f64::from(v)).sum::<f64>() / 8.0;
    let std = (raw.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 8.0).sqrt();
    for (value, &raw) in values.iter().zip(&raw) {
        let found = f64::from((value - scan.mean()[0]) / scan.std()[0]);
        let expected = (f64::from(raw) - mean) / std;
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
    let window = Scan::read(&toy.path("scan.nii"), 1, Some([0.0, 100.0]), &Limits::default()).unwrap();
    assert_eq!(window.image(0).data, [0.0, 1.0, 1.0, 0.4]);
    toy.write("flat.nii", Nifti::bytes(&[2, 2, 1], vec![7; 4]).content());
    let flat = Scan::read(&toy.path("flat.nii"), 1, None, &Limits::default()).unwrap();
    assert_eq!((flat.image(0).data, flat.mean(), flat.std()), (vec![0.0; 4], &[0.0][..], &[1e-8][..]));
    says(
        Scan::read(&toy.path("flat.nii"), 2, None, &Limits::default()),
        &["flat.nii: found a volume of 1 channels, expected 2, one for each modality"],
    );
}

proptest! {
    #[test]
    fn whatever_the_bytes_a_header_is_read_or_refused(
        places in prop::collection::vec((0usize..400, any::<u8>()), 0..12), zipped: bool, cut in 0usize..500,
    ) {
        let mut content = Nifti::new(&[3, 2, 2, 2], 4, 16, vec![3; 48]).content();
        for (place, byte) in places {
            content[place] = byte;
        }
        content.truncate(cut.max(1));
        let content = if zipped { gzip(&content) } else { content };
        let limits = Limits { pixels: 1 << 16, bytes: 1 << 20 };
        if let Ok(volume) = nifti::decode("v".as_ref(), &content, &limits) {
            let header = &volume.header;
            prop_assert_eq!(volume.data.len(), header.channels * header.depth * header.height * header.width);
            prop_assert!(volume.data.iter().all(|value| value.is_finite()));
        }
    }
}

/// A task with two modalities, three volumes of 3 × 2 voxels and 2, 1 and 3 slices.
struct Task(Toy);

impl Task {
    const DEPTHS: [i16; 3] = [2, 1, 3];

    fn new() -> Self {
        let task = Self(Toy::new(0));
        let mut training = Vec::new();
        for (number, depth) in Self::DEPTHS.into_iter().enumerate() {
            let pixels = 6 * depth as usize;
            let values = |channel: usize| {
                (0..pixels).map(move |voxel| if voxel == 0 { 0 } else { (voxel + 3 * channel + number) as u8 })
            };
            let image = Nifti::bytes(&[3, 2, depth, 2], values(0).chain(values(1)).collect());
            let labels = Nifti::bytes(&[3, 2, depth], (0..pixels).map(|voxel| [0, 1, 4][voxel % 3]).collect());
            task.0.write(&format!("imagesTr/case_{number}.nii.gz"), image.zipped());
            task.0.write(&format!("labelsTr/case_{number}.nii.gz"), labels.zipped());
            let path = |folder: &str| format!("./{folder}/case_{number}.nii.gz");
            training.push(json!({ "image": path("imagesTr"), "label": path("labelsTr") }));
        }
        task.dataset(json!(training));
        task
    }

    fn dataset(&self, training: Value) {
        let contents = json!({
            "name": "Prostate", "modality": { "0": "T2", "1": "ADC" }, "tensorImageSize": "4D", "numTraining": 3,
            "labels": { "0": "background", "1": "peripheral", "4": "transition" }, "training": training, "test": [],
            "licence": "CC-BY-SA 4.0",
        });
        self.0.write("dataset.json", contents.to_string());
    }

    fn file(&self) -> PathBuf {
        self.0.path("dataset.json")
    }

    fn open(&self) -> Result<Box<dyn Dataset>, Error> {
        open(self.file().to_str().unwrap(), None, Split::Train, Options::default())
    }
}

#[test]
fn a_decathlon_folder_is_a_data_set_of_slices_that_know_their_volume() {
    let task = Task::new();
    let data = task.open().unwrap();
    assert_eq!((data.name(), data.len(), data.channels()), ("Prostate", 6, 2));
    let classes: Vec<&str> = data.classes().iter().map(|class| class.name.as_str()).collect();
    assert_eq!(classes, ["background", "peripheral", "transition"]);
    let names: Vec<String> = (0..6).map(|index| data.sample_name(index)).collect();
    assert_eq!(names, ["case_0 0", "case_0 1", "case_1 0", "case_2 0", "case_2 1", "case_2 2"]);
    for (index, name) in names.iter().enumerate() {
        let sample = data.get(index).unwrap();
        let case = sample.case.clone().unwrap();
        assert_eq!((sample.id, Some(case.slice.clone())), (index as u64, data.slice(index)));
        assert_eq!(format!("{} {}", case.slice.name, case.slice.z), *name);
        assert_eq!((sample.image.channels, sample.image.size(), sample.mask.size()), (2, (2, 3), (2, 3)));
        assert_eq!(sample.mask.data, [0, 1, 2, 0, 1, 2], "raw value 4 is the third class");
        assert_eq!((case.spacing, case.mean.len(), case.std.len()), (Some([1.0; 3]), 2, 2));
    }
    let volumes: Vec<u64> = (0..6).map(|index| data.slice(index).unwrap().volume).collect();
    assert_eq!(volumes, [0, 0, 1, 2, 2, 2]);
    // Second slice of the first volume: voxels 6 to 11 of 0..=11 and of 0, 4..=14.
    let sample = data.get(1).unwrap();
    assert_eq!((sample.image.data[5], sample.image.data[6]), (1.0, 9.0 / 14.0));
    assert_eq!(data.stored_as(0).unwrap(), "NIfTI uint8 RAS, mask uint8");
    let part = Subset::new(data, vec![4, 0]).unwrap();
    assert_eq!((part.slice(0).unwrap().z, part.get(0).unwrap().case.unwrap().slice.volume), (1, 2));
}

#[test]
fn slices_of_a_volume_share_its_statistics() {
    let task = Task::new();
    let data = task.open().unwrap();
    let cases: Vec<_> = (0..6).map(|index| data.get(index).unwrap().case.unwrap()).collect();
    assert_eq!((&cases[3].mean, &cases[3].std), (&cases[5].mean, &cases[5].std));
    assert_ne!(cases[0].mean, cases[5].mean);
    let pixels: Vec<f64> =
        (3..6).flat_map(|index| data.get(index).unwrap().image.data[6..].to_vec()).map(f64::from).collect();
    let mean = pixels.iter().sum::<f64>() / 18.0;
    let std = (pixels.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 18.0).sqrt();
    assert!((f64::from(cases[3].mean[1]) - mean).abs() < 1e-6 && (f64::from(cases[3].std[1]) - std).abs() < 1e-6);
}

#[test]
fn resizing_keeps_the_volume_and_changes_the_spacing_in_the_plane() {
    let task = Task::new();
    let options = Options { size: Some((4, 12)), ..Options::default() };
    let data = open(task.file().to_str().unwrap(), None, Split::Train, options).unwrap();
    let case = data.get(5).unwrap().case.unwrap();
    assert_eq!((case.spacing, case.slice.z, data.slice(5)), (Some([1.0, 0.5, 0.25]), 2, Some(case.slice)));
}

const MANIFEST: &str = r#"
name = "prostate"
title = "Prostate"
origin = "made here"
licence = "CC0 1.0"
channels = 2
range = [0.0, 10.0]
classes = [
    { name = "background", color = [0, 0, 0] },
    { name = "prostate", color = [200, 0, 0], values = [1, 4] },
]
[msd]
[splits.train]
list = "train.txt"
[splits.val]
list = "{split}.txt"
"#;

#[test]
fn a_manifest_splits_volumes_joins_labels_and_sets_a_window() {
    let task = Task::new();
    task.0.write("m.toml", MANIFEST);
    task.0.write("train.txt", "case_2\ncase_0.nii.gz\n");
    task.0.write("val.txt", "case_1\n");
    let read = |split| open(task.0.path("m.toml").to_str().unwrap(), None, split, Options::default());
    let train = read(Split::Train).unwrap();
    assert_eq!(
        (train.len(), train.sample_name(0).as_str(), train.sample_name(3).as_str()),
        (5, "case_2 0", "case_0 0")
    );
    assert_eq!(train.slice(3).unwrap().volume, 1, "volumes are numbered within the split");
    let sample = train.get(4).unwrap();
    assert_eq!((sample.mask.data, sample.image.data[0]), (vec![0, 1, 1, 0, 1, 1], 0.6));
    assert!(sample.image.data[6..].contains(&1.0), "what lies over the window is clipped");
    assert_eq!(read(Split::Val).unwrap().len(), 1);
    task.0.write("val.txt", "case_1\ncase_7\nimagesTr/case_1.nii.gz\n");
    says(
        read(Split::Val),
        &["val.txt: 2 problems", "the volume `case_7`, expected one of `training` in", "imagesTr/case_1.nii.gz"],
    );
    task.0.write("val.txt", "\n");
    says(read(Split::Val), &["data set `prostate`, split `val`: found no samples in", "val.txt"]);
    task.0.write("m.toml", MANIFEST.replace("values = [1, 4]", "values = [1]").replace("channels = 2", "channels = 4"));
    says(
        read(Split::Train),
        &[
            "dataset.json: 2 problems",
            "2 modalities, expected 4 as `channels` of the manifest says",
            "the label 4 (`transition`), expected labels that the manifest knows",
        ],
    );
}

#[test]
fn a_dataset_json_lists_everything_that_is_wrong_with_it() {
    let parse = |text: &str| msd::parse("dataset.json".as_ref(), text);
    let text = json!({
        "name": "x", "modality": { "0": "MRI", "2": "CT" }, "labels": { "0": "a", "one": "b", "70000": "c", "01": "d" },
        "training": [
            { "image": "../../etc/passwd", "label": "labels/a.nii" },
            { "image": "images/b.nii.gz", "label": "/etc/b.nii.gz" },
            { "image": "other/b.nii", "label": "labels/b.nii" },
        ],
    });
    says(
        parse(&text.to_string()),
        &[
            "dataset.json: 7 problems",
            "`modality` has the keys [\"0\", \"2\"]",
            "the key \"one\"",
            "the key \"70000\"",
            "the key \"01\"",
            "`training` 0: `../../etc/passwd` goes upwards, expected a path inside the root folder",
            "`training` 1: `/etc/b.nii.gz` is absolute",
            "`training` 2: the volume `b` twice",
        ],
    );
    says(parse("{"), &["dataset.json: found text that is no dataset.json", "expected a dataset.json with `name`"]);
    says(parse("{\"name\": \"x\"}"), &["missing field `modality`"]);
    let task = Task::new();
    task.dataset(json!([]));
    says(task.open(), &["data set `Prostate`, split `train`: found no samples in"]);
}

#[test]
fn volumes_that_cannot_be_opened_are_all_listed() {
    let task = Task::new();
    std::fs::remove_file(task.0.path("imagesTr/case_0.nii.gz")).unwrap();
    task.0.write("imagesTr/case_2.nii.gz", [0x1f, 0x8b, 0, 0]);
    says(
        task.open(),
        &[
            "dataset.json: 2 problems",
            "imagesTr/case_0.nii.gz: found no such file, expected a NIfTI-1 volume",
            "imagesTr/case_2.nii.gz: found a broken or short file",
        ],
    );
}

#[test]
fn check_names_each_broken_volume_once() {
    let task = Task::new();
    let labels = |extents: &[i16], voxels: Vec<u8>| Nifti::bytes(extents, voxels).zipped();
    task.0.write("labelsTr/case_0.nii.gz", labels(&[2, 3, 2], vec![0; 12]));
    let mut raw = vec![0; 18];
    (raw[7], raw[8]) = (9, 9);
    task.0.write("labelsTr/case_2.nii.gz", labels(&[3, 2, 3], raw));
    let report = check(task.open().unwrap().as_ref());
    let problems: Vec<(&str, &str)> =
        report.problems.iter().map(|problem| (problem.sample.as_str(), problem.message.as_str())).collect();
    assert_eq!((report.samples, problems.len(), problems[0].0, problems[1].0), (6, 2, "case_0", "case_2"));
    let found =
        "labelsTr/case_0.nii.gz: found labels of 2x3x2 voxels and 1 channels, expected 3x2x2 voxels and 1 channel";
    assert!(problems[0].1.contains(found) && problems[0].1.contains("imagesTr/case_0.nii.gz"), "{}", problems[0].1);
    let found = "found labels outside the class list: 9 (2 voxels, first at x 1, y 0, z 1), expected 0..=1, 4";
    assert!(problems[1].1.contains(found), "{}", problems[1].1);
    assert_eq!(report.sizes["3x2"], 1);
}

#[test]
fn labels_that_are_no_whole_numbers_or_lie_elsewhere_are_refused() {
    let task = Task::new();
    let label = |file: Nifti| {
        task.0.write("labelsTr/case_1.nii.gz", file.zipped());
        task.open().unwrap().get(2)
    };
    let good = Nifti::bytes(&[3, 2, 1], vec![0, 1, 4, 0, 1, 4]);
    label(good.clone()).unwrap();
    says(
        label(Nifti { scaling: [0.5, 0.0], ..good.clone() }),
        &["0.5 (2 voxels, first at x 1, y 0, z 0)", "2 (2 voxels"],
    );
    says(label(Nifti { scaling: [-1.0, 0.0], ..good.clone() }), &["-1 (2 voxels", "-4 (2 voxels"]);
    let mut mirrored = good.clone();
    mirrored.sform.as_mut().unwrap()[0][0] = -1.0;
    says(
        label(mirrored),
        &["found labels of voxels of 1.0000x1.0000x1.0000 mm (z, y, x), LAS, expected", "RAS as its image"],
    );
    let mut coarse = good.clone();
    coarse.sform.as_mut().unwrap()[2][2] = 3.0;
    says(label(coarse), &["3.0000x1.0000x1.0000 mm"]);
    says(label(Nifti::bytes(&[3, 2, 1, 2], vec![0; 12])), &["labels of 3x2x1 voxels and 2 channels"]);
}

#[cfg(unix)]
#[test]
fn a_volume_that_is_a_link_out_of_the_root_is_refused() {
    let (task, other) = (Task::new(), Task::new());
    std::fs::remove_file(task.0.path("labelsTr/case_1.nii.gz")).unwrap();
    let outside = other.0.path("labelsTr/case_1.nii.gz");
    std::os::unix::fs::symlink(outside, task.0.path("labelsTr/case_1.nii.gz")).unwrap();
    says(task.open().unwrap().get(2), &["labelsTr/case_1.nii.gz: found a symbolic link to"]);
}

#[test]
fn a_json_path_needs_no_root_and_a_manifest_s_is_known_by_its_folder() {
    assert_eq!(Manifest::folder_beside("a/dataset.json"), Some(PathBuf::from("a")));
    assert_eq!(Manifest::folder_beside("m.toml"), Some(PathBuf::from(".")));
    assert_eq!(Manifest::folder_beside("scenes"), None);
    says(Manifest::find("/nowhere/dataset.json"), &["/nowhere/dataset.json: found no such file"]);
}

/// idx slices of two volumes, 255 is padding.
fn idx_slices(names: &str) -> (Toy, Result<Box<dyn Dataset>, Error>) {
    let toy = Toy::new(0);
    let head = "name = \"toy\"\ntitle = \"t\"\norigin = \"o\"\nlicence = \"l\"\nchannels = 1\nvoid = [255]\n";
    let classes = "classes = [{ name = \"a\", color = [0, 0, 0] }, { name = \"b\", color = [1, 1, 1] }]\n";
    let idx = "[idx]\nimages = \"i\"\nlabels = \"l\"\nnames = \"n\"\nvolumes = true\n[splits.train]\n";
    toy.write("toy.toml", format!("{head}{classes}{idx}"));
    let array = |data: &[u8]| [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2], data].concat();
    toy.write("i", array(&[0, 51, 102, 255, 10, 200]));
    toy.write("l", array(&[0, 1, 1, VOID, VOID, VOID]));
    toy.write("n", names);
    let opened = toy.open(Split::Train);
    (toy, opened)
}

#[test]
fn idx_slices_know_their_volume_and_its_statistics_without_padding() {
    let (_toy, data) = idx_slices("p 1 0\np 1 7\nq 0\n");
    let data = data.unwrap();
    let slices: Vec<_> = (0..3).map(|index| data.slice(index).unwrap()).collect();
    assert_eq!((slices[0].name.as_str(), slices[1].z), ("p 1", 7));
    assert_eq!(slices.iter().map(|slice| slice.volume).collect::<Vec<u64>>(), [0, 0, 1]);
    let case = data.get(1).unwrap().case.unwrap();
    // 0, 0.2 and 0.4.
    assert!((case.mean[0] - 0.2).abs() < 1e-7 && (f64::from(case.std[0]) - (0.08f64 / 3.0).sqrt()).abs() < 1e-7);
    assert_eq!(data.get(2).unwrap().case.unwrap().std, [1e-8], "nothing but padding");
}

#[test]
fn idx_names_that_are_no_slices_are_refused() {
    for wrong in ["p", "p x", "p 01", "p -1"] {
        let (_toy, data) = idx_slices(&format!("p 1\np 2\n{wrong}\n"));
        says(data, &["n: found the name `", wrong, "expected `VOLUME Z`, such as `patient_07 12`"]);
    }
    let toy = Toy::new(0);
    let text = "name = \"t\"\ntitle = \"t\"\norigin = \"o\"\nlicence = \"l\"\nchannels = 1\nclasses = [{ name = \"a\", color = [0, 0, 0] }]\n[idx]\nimages = \"i\"\nlabels = \"l\"\nvolumes = true\n[splits.train]\n";
    says(Manifest::parse(&toy.path("m.toml"), text), &["`idx.volumes` without `idx.names`"]);
}
