//! Every kind of bad input: an error that names the file, what was found and what was expected.

use fireproof_datasets::{
    Dataset, Error, Manifest, Options, Split, Subset, check, open,
    read::{Limits, idx},
    verify,
};

use crate::support::{MANIFEST, Toy, grey, png, rgb};

/// The error's text, which must hold all the parts.
fn says<T>(result: Result<T, Error>, parts: &[&str]) -> String {
    let message = result.err().expect("an error").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    message
}

#[test]
fn a_missing_image_or_mask_is_named() {
    let toy = Toy::new(2);
    std::fs::remove_file(toy.path("images/s0.png")).unwrap();
    std::fs::remove_file(toy.path("masks/s1.png")).unwrap();
    let data = toy.train();
    says(data.get(0), &["images/s0.png: found no such file, expected a PNG or JPEG image"]);
    says(data.get(1), &["masks/s1.png: found no such file, expected a PNG mask"]);
}

#[test]
fn a_mask_of_another_size_is_refused_with_both_sizes() {
    let toy = Toy::new(1);
    toy.write("masks/s0.png", grey(3, 4, |_| 0));
    says(toy.train().get(0), &["masks/s0.png: found a mask of 3x4 pixels, expected 4x3 as its image", "images/s0.png"]);
}

#[test]
fn labels_outside_the_class_list_are_counted_and_located() {
    let toy = Toy::new(1);
    toy.write("masks/s0.png", grey(4, 3, |pixel| if pixel >= 6 { 37 } else { (pixel == 1).into() }));
    says(
        toy.train().get(0),
        &["masks/s0.png: found labels outside the class list: 37 (6 pixels, first at x 2, y 1)", "expected 0..=2, 9"],
    );
}

#[test]
fn a_photograph_in_the_place_of_a_mask_does_not_flood_the_message() {
    let toy = Toy::new(1);
    toy.write("images/s0.png", rgb(100, 100, 0));
    toy.write("masks/s0.png", grey(100, 100, |pixel| (pixel % 250) as u8));
    let message = says(toy.train().get(0), &["others"]);
    assert!(message.len() < 600, "{message}");
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let toy = Toy::new(1);
    let image = rgb(40, 30, 3);
    let mask = grey(40, 30, |_| 1);
    for length in 0..image.len() - 12 {
        // The last 12 bytes are the IEND chunk: all pixels are there without it.
        toy.write("images/s0.png", &image[..length]);
        says(toy.train().get(0), &["images/s0.png: found "]);
    }
    toy.write("images/s0.png", &image);
    for length in 0..mask.len() - 12 {
        toy.write("masks/s0.png", &mask[..length]);
        says(toy.train().get(0), &["masks/s0.png: found a broken file", "expected a PNG mask"]);
    }
}

#[test]
fn a_truncated_jpeg_is_refused_although_decoders_fill_it_with_grey() {
    let toy = Toy::new(1);
    let data: Vec<u8> = (0..64 * 48 * 3).map(|index| (index % 253) as u8).collect();
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode(&data, 64, 48, image::ExtendedColorType::Rgb8).unwrap();
    toy.write("masks/s0.png", grey(64, 48, |_| 0));
    toy.write("images/s0.png", &jpeg);
    assert_eq!(toy.train().get(0).unwrap().image.size(), (48, 64), "the content decides, not the ending of the name");
    for length in [0, 1, 10, jpeg.len() / 2, jpeg.len() - 2] {
        toy.write("images/s0.png", &jpeg[..length]);
        says(toy.train().get(0), &["images/s0.png: found "]);
    }
    says(toy.train().get(0), &["found a JPEG that ends early", "expected its end marker"]);
}

#[test]
fn a_coloured_mask_is_refused_where_indices_are_expected() {
    let toy = Toy::new(1);
    toy.write("masks/s0.png", rgb(4, 3, 0));
    says(toy.train().get(0), &["masks/s0.png: found RGB 8-bit PNG, expected class indices: a grey or palette PNG"]);
}

#[test]
fn a_grey_mask_is_refused_where_colours_are_expected() {
    let toy = Toy::new(1);
    toy.write("toy.toml", MANIFEST.replace("[folder]", "[folder]\nencoding = \"color\""));
    says(toy.train().get(0), &["masks/s0.png: found grey 8-bit PNG, expected class colours"]);
    toy.write("masks/s0.png", rgb(4, 3, 0));
    says(toy.train().get(0), &["labels outside the class list", "colour (", "expected one of the 3 colours"]);
}

#[test]
fn an_empty_list_or_folder_is_an_empty_split() {
    let toy = Toy::new(1);
    toy.write("list.txt", "\n \n");
    says(toy.open(Split::Train), &["data set `toy`, split `train`: found no samples in", "list.txt", "at least one"]);
    std::fs::remove_file(toy.path("images/s0.png")).unwrap();
    says(toy.open(Split::Val), &["split `val`: found no samples in", "images"]);
}

#[test]
fn a_list_may_not_leave_the_root_and_all_its_problems_are_listed() {
    let toy = Toy::new(2);
    toy.write("list.txt", "s0\n../s1\n/etc/passwd\nC:\\x\ns0\na/../../b\n");
    says(
        toy.open(Split::Train),
        &[
            "list.txt: 5 problems",
            "line 2: `../s1` goes upwards",
            "line 3: `/etc/passwd` is absolute",
            "line 4: `C:\\\\x`",
            "line 5: `s0` is also line 1, expected each name once",
            "line 6: `a/../../b` goes upwards",
        ],
    );
    toy.write("list.txt", "s0.png\ns0\n");
    says(toy.open(Split::Train), &["list.txt: found `s0` with and without its ending, expected each name once"]);
    toy.write("list.txt", [b's', 0xff, b'\n']);
    says(toy.open(Split::Train), &["list.txt: found bytes that are no UTF-8 at 1"]);
    std::fs::remove_file(toy.path("list.txt")).unwrap();
    says(toy.open(Split::Train), &["list.txt: found no such file"]);
}

#[cfg(unix)]
#[test]
fn symbolic_links_may_not_leave_the_root() {
    let (toy, other) = (Toy::new(1), Toy::new(1));
    std::fs::remove_file(toy.path("images/s0.png")).unwrap();
    std::os::unix::fs::symlink(other.path("images/s0.png"), toy.path("images/s0.png")).unwrap();
    says(toy.train().get(0), &["images/s0.png: found a symbolic link to", "expected a relative path inside"]);
    // A link that stays inside is how some sets share files.
    std::fs::remove_file(toy.path("images/s0.png")).unwrap();
    toy.write("store/x.png", rgb(4, 3, 0));
    std::os::unix::fs::symlink(toy.path("store/x.png"), toy.path("images/s0.png")).unwrap();
    toy.train().get(0).unwrap();
    // A linked folder is refused for lists and searches too.
    std::fs::rename(toy.path("images"), toy.path("images.old")).unwrap();
    std::os::unix::fs::symlink(other.path("images"), toy.path("images")).unwrap();
    says(toy.open(Split::Val), &["images: found a symbolic link to"]);
}

#[cfg(unix)]
#[test]
fn a_folder_or_pipe_in_the_place_of_a_file_is_refused_without_waiting() {
    let toy = Toy::new(2);
    std::fs::remove_file(toy.path("images/s0.png")).unwrap();
    std::fs::create_dir(toy.path("images/s0.png")).unwrap();
    std::fs::remove_file(toy.path("images/s1.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(toy.path("images/s1.png")).status().unwrap().success());
    says(toy.train().get(0), &["images/s0.png: found something that is not a file"]);
    says(toy.train().get(1), &["images/s1.png: found something that is not a file"]);
}

/// The PNG with another width and height in its header, checksum included.
fn with_header(mut content: Vec<u8>, width: u32, height: u32) -> Vec<u8> {
    content[16..20].copy_from_slice(&width.to_be_bytes());
    content[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&content[12..29]);
    content[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    content
}

#[test]
fn absurd_headers_are_refused_before_memory_is_allocated() {
    let toy = Toy::new(1);
    // 2^31 - 1 squared pixels would be 12 EiB; the machine would notice.
    let absurd = 0x7fff_ffff;
    toy.write("masks/s0.png", with_header(grey(4, 3, |_| 0), absurd, absurd));
    says(
        toy.train().get(0),
        &["masks/s0.png: found a header that says 2147483647x2147483647", "at most 67108864 pixels"],
    );
    toy.write("images/s0.png", with_header(rgb(4, 3, 0), absurd, absurd));
    says(toy.train().get(0), &["images/s0.png: found a header that says 2147483647x2147483647"]);
    toy.write("images/s0.png", with_header(rgb(4, 3, 0), 70_000, 1_000));
    says(toy.train().get(0), &["images/s0.png: found a header that says 70000x1000 pixels, expected at most 67108864"]);
    toy.write("images/s0.png", with_header(rgb(4, 3, 0), 0, 3));
    says(toy.train().get(0), &["images/s0.png: found 0x3 pixels, expected at least 1x1"]);
}

#[test]
fn files_over_the_limit_are_not_read() {
    let toy = Toy::new(1);
    let limits = Limits { bytes: 100, ..Limits::default() };
    toy.write("list.txt", "s0");
    toy.write("images/s0.png", vec![0u8; 101]);
    let name = toy.path("toy.toml");
    let data = open(name.to_str().unwrap(), None, Split::Train, Options { limits, ..Options::default() }).unwrap();
    says(data.get(0), &["images/s0.png: found 101 bytes, expected at most 100 bytes"]);
}

#[test]
fn check_finds_everything_in_one_pass() {
    let toy = Toy::new(6);
    std::fs::remove_file(toy.path("images/s1.png")).unwrap();
    toy.write("masks/s3.png", rgb(4, 3, 0));
    toy.write("masks/s4.png", grey(5, 3, |_| 0));
    let report = check(toy.train().as_ref());
    let names: Vec<&str> = report.problems.iter().map(|problem| problem.sample.as_str()).collect();
    assert_eq!((report.samples, names), (6, vec!["s1", "s3", "s4"]));
    assert_eq!(report.sizes["4x3"], 3);
    let pixels: Vec<u64> = report.classes.iter().map(|class| class.pixels).collect();
    assert_eq!((pixels, report.void_pixels), (vec![9, 9, 9], 9));
    assert_eq!(report.stored_as["RGB 8-bit PNG, mask grey 8-bit PNG"], 4);
    assert!((report.void_share() - 0.25).abs() < 1e-12);
    let text = report.to_string();
    assert!(text.starts_with("toy, split `train`: 6 samples, 3 problems\n"), "{text}");
    assert!(text.contains("s1: ") && text.contains("images/s1.png: found no such file"), "{text}");
}

#[test]
fn files_that_differ_from_the_manifest_s_checksums_are_listed() {
    let toy = Toy::new(1);
    let manifest = MANIFEST.replace(
        "[folder]",
        "checksums = { \"list.txt\" = \"b28fab54f0ebf9b5b5c9e9a5ea6aa3a6\", \"none.txt\" = \"00\" }\n[folder]",
    );
    let manifest = Manifest::parse("toy.toml".as_ref(), &manifest).unwrap();
    let wrong: Vec<String> = verify(&manifest, toy.root()).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(wrong.len(), 2);
    assert!(wrong[0].contains("list.txt: found SHA-256 ") && wrong[0].contains("as the manifest says"), "{}", wrong[0]);
    assert!(wrong[1].contains("none.txt: found No such file"), "{}", wrong[1]);
    // echo -n s0 | sha256sum
    let right = MANIFEST.replace("[folder]", &format!("checksums = {{ \"list.txt\" = \"{S0}\" }}\n[folder]"));
    assert_eq!(verify(&Manifest::parse("toy.toml".as_ref(), &right).unwrap(), toy.root()).unwrap(), []);
}

const S0: &str = "ec18eac8d758b1eba52d3c10d39adc6dd9806472cb4ae069635d383d9086a513";

#[test]
fn unknown_names_splits_and_roots_are_answered_with_those_that_there_are() {
    says(
        open("cam", None, Split::Test, Options::default()),
        &["data set `cam`", "camvid, cityscapes", "path of a .toml file"],
    );
    says(
        open("camvid", None, Split::Test, Options::default()),
        &["data set `camvid`", "--root DIR", "{split}/images/{name}.png"],
    );
    says(
        open("camvid", Some("/nowhere".as_ref()), Split::Test, Options::default()),
        &["/nowhere: found no such folder"],
    );
    says(
        open("voc2012", None, Split::Named("tests".into()), Options::default()),
        &["`tests`", "train, trainaug, trainval, val"],
    );
    says(
        open("/nowhere/my.toml", None, Split::Test, Options::default()),
        &["/nowhere/my.toml: found no such file, expected a manifest"],
    );
    let zero = Options { size: Some((0, 5)), ..Options::default() };
    says(open("scenes", None, Split::Test, zero), &["--size: found 0x5"]);
}

#[test]
fn a_manifest_s_problems_are_all_listed() {
    let text = MANIFEST
        .replace("channels = 3", "channels = 4")
        .replace("void = [9]", "void = [2]")
        .replace("images/{name}.png", "../images/{name}.png")
        .replace("masks/{name}.png", "masks/all.png");
    says(
        Manifest::parse("my.toml".as_ref(), &text),
        &[
            "my.toml: 4 problems",
            "`channels` is 4, expected 1 or 3",
            "`folder.images`: `../images/{name}.png` goes upwards",
            "`folder.masks` has `{name}` 0 times, expected 1",
            "the mask value 2 means void and class 2, expected one",
        ],
    );
    says(Manifest::parse("my.toml".as_ref(), "name = 3"), &["my.toml: found text that is no manifest", "line 1"]);
    let both = MANIFEST.to_owned() + "[scenes]\nsize = [8, 8]\n";
    says(
        Manifest::parse("my.toml".as_ref(), &both),
        &["2 of the tables [folder], [idx], [msd] and [scenes], expected one"],
    );
    says(Manifest::parse("my.toml".as_ref(), &(MANIFEST.to_owned() + "wrong = 1")), &["unknown field `wrong`"]);
}

#[test]
fn idx_arrays_must_be_as_long_as_they_say() {
    let limits = Limits::default();
    let parse = |content: &[u8]| idx::decode("x-idx".as_ref(), content, &limits);
    says(parse(&[]), &["x-idx: found a broken or short file"]);
    says(parse(b"PK\x03\x04...."), &["x-idx: found the first bytes [50, 4b, 03, 04]"]);
    says(parse(&[0, 0, 13, 1, 0, 0, 0, 1, 0]), &["element type 0x0d with 1 dimensions"]);
    says(parse(&[0, 0, 8, 9]), &["element type 0x08 with 9 dimensions"]);
    says(parse(&[0, 0, 8, 1, 0, 0, 0, 3, 1, 2]), &["a header that says [3], expected at most the 2 bytes"]);
    says(parse(&[0, 0, 8, 1, 0, 0, 0, 1, 1, 2]), &["found more values, expected 1 as its header [1] says"]);
    let absurd = [&[0, 0, 8, 4][..], &[0xff; 16], &[0; 100]].concat();
    says(parse(&absurd), &["a header that says [4294967295, 4294967295, 4294967295, 4294967295]"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &[&[0, 0, 8, 1, 0, 1, 0, 0][..], &[5; 0xfff0]].concat()).unwrap();
    says(parse(&gzip.finish().unwrap()), &["found only 65520 values, expected 65536"]);
}

#[test]
fn idx_data_sets_must_fit_together() {
    let toy = Toy::new(0);
    let header = MANIFEST.split("[folder]").next().unwrap().replace("channels = 3", "channels = 1");
    let idx = "[idx]\nimages = \"i\"\nlabels = \"l\"\nnames = \"n\"\n[splits.train]\n";
    toy.write("toy.toml", header + idx);
    let array = |shape: &[u8], data: &[u8]| {
        let mut content = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|&extent| content.extend([0, 0, 0, extent]));
        content.extend(data);
        content
    };
    toy.write("i", array(&[2, 1, 2], &[0, 51, 102, 255]));
    toy.write("l", array(&[2, 2, 1], &[0, 1, 2, 9]));
    toy.write("n", "one\ntwo\n");
    says(toy.open(Split::Train), &["l: found an array of [2, 2, 1], expected [2, 1, 2] or [2] as its images"]);
    toy.write("l", array(&[2, 1, 2], &[0, 1, 9, 3]));
    let data = toy.train();
    let first = data.get(0).unwrap();
    assert_eq!((first.name.as_str(), first.image.data, first.mask.data), ("one", vec![0.0, 0.2], vec![0, 1]));
    says(data.get(1), &["l: found label 3 in sample 1 (`two`) at x 1, y 0"]);
    toy.write("l", array(&[2], &[2, 0]));
    assert_eq!(toy.train().get(0).unwrap().mask.data, [2]);
    toy.write("n", "one\n");
    says(toy.open(Split::Train), &["n: found 1 names, expected 2, one for each image"]);
    toy.write("n", "one\none\n");
    says(toy.open(Split::Train), &["n: found `one` twice, expected each name once"]);
    toy.write("i", array(&[0, 1, 2], &[]));
    toy.write("l", array(&[0], &[]));
    says(toy.open(Split::Train), &["found no samples"]);
    toy.write("i", array(&[4], &[1, 2, 3, 4]));
    says(toy.open(Split::Train), &["i: found an array of [4], expected images: [N, H, W]"]);
}

#[test]
fn values_outside_the_stated_range_are_refused() {
    let toy = Toy::new(1);
    toy.write("toy.toml", MANIFEST.replace("channels = 3", "channels = 1\nrange = [0.0, 4095.0]"));
    let wide = |values: [u16; 12]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        png(4, 3, png::ColorType::Grayscale, png::BitDepth::Sixteen, &data)
    };
    toy.write("images/s0.png", wide([4095, 0, 2047, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let image = toy.train().get(0).unwrap().image;
    assert_eq!(image.data[..3], [1.0, 0.0, 2047.0 / 4095.0]);
    toy.write("images/s0.png", wide([4096, 0, 2047, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    says(toy.train().get(0), &["images/s0.png: found the value 4096, expected values in 0..=4095"]);
}

#[test]
fn names_that_a_subset_does_not_find_are_listed() {
    let toy = Toy::new(4);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    says(Subset::named(toy.train(), &names(&["s1", "x", "y.png"])), &["frames: found x, y.png, expected names of toy"]);
    let few = Subset::named(toy.train(), &names(&["s3.png", "s1"])).unwrap();
    assert_eq!((few.get(0).unwrap().id, few.get(1).unwrap().id, few.len()), (3, 1, 2));
    says(Subset::named(toy.train(), &names(&["s1", "s1"])), &["index 1 twice"]);
    says(Subset::filtered(toy.train(), |name| name == "z"), &["subset: found no samples"]);
}
