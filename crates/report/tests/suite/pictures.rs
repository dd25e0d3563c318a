use fireproof_report::panels::sheet;
use fireproof_report::plots::curves;
use fireproof_report::{Panel, ReportError, Results};
use image::RgbImage;

use crate::fixtures::{key, run};
use crate::tables::{results, row};

fn decode(png: &[u8]) -> RgbImage {
    image::load_from_memory_with_format(png, image::ImageFormat::Png).unwrap().to_rgb8()
}

fn pixels(picture: &RgbImage, color: [u8; 3]) -> usize {
    picture.pixels().filter(|pixel| pixel.0 == color).count()
}

const BLUE: [u8; 3] = [0, 114, 178];
const ORANGE: [u8; 3] = [213, 94, 0];

#[test]
fn curves_show_each_attack_in_its_colour_and_both_scores() {
    let mut results = results();
    let figures = curves(&results).unwrap();
    let names: Vec<&str> = figures.iter().map(|figure| figure.file.as_str()).collect();
    assert_eq!(names, ["curves-miou.png", "curves-misratio.png"]);
    let picture = decode(&figures[0].png);
    assert!(pixels(&picture, BLUE) > 500);
    assert_eq!(pixels(&picture, ORANGE), 0);
    results.rows.extend([3, 10].map(|steps| row(&key("standard", "segpgd", steps), 5)));
    let picture = decode(&curves(&results).unwrap()[0].png);
    assert!(pixels(&picture, BLUE) > 500 && pixels(&picture, ORANGE) > 200);
}

#[test]
fn curves_are_the_same_file_each_time() {
    assert_eq!(curves(&results()).unwrap(), curves(&results()).unwrap());
}

#[test]
fn attacks_at_one_number_of_steps_make_no_curve() {
    let rows = vec![row(&key("standard", "none", 0), 90), row(&key("standard", "pgd", 3), 10)];
    assert_eq!(curves(&Results::new(run(), rows)).unwrap(), []);
}

#[test]
fn curves_of_one_value_or_of_names_in_any_script_are_drawn_without_panic() {
    let mut results = results();
    results.rows.iter_mut().for_each(|row| {
        row.miou = Some(0.0);
        row.pixel_accuracy = None;
        row.model = "模型 🦀 ".repeat(30);
    });
    assert_eq!(curves(&results).unwrap().len(), 2);
    results.rows.iter_mut().for_each(|row| row.miou = Some(1.0));
    assert_eq!(curves(&results).unwrap().len(), 2);
}

/// A grey picture of 4 × 2 pixels, brightened by `delta` except for its first pixel.
fn panel(delta: f32) -> Panel {
    let image = vec![0.5f32; 8];
    let mut adversarial = vec![0.5 + delta; 8];
    adversarial[0] = 0.5;
    Panel {
        caption: "unet · pgd".into(),
        height: 2,
        width: 4,
        range: [0.0, 1.0],
        image,
        adversarial,
        labels: vec![0, 0, 0, 0, 1, 1, 1, 255],
        before: vec![0, 0, 0, 0, 1, 1, 1, 1],
        after: vec![0, 1, 1, 1, 1, 1, 7, 1],
    }
}

/// The colour at the middle of the pixel `(x, y)` in the picture of a column.
fn at(picture: &RgbImage, column: u32, x: u32, y: u32) -> [u8; 3] {
    // Pictures of 4 × 2 pixels are enlarged 16 times; the first starts at the margin, below the headings and the caption.
    let (left, top, size, gap) = (32, 116, 16, 12);
    picture.get_pixel(left + column * (4 * size + gap) + x * size + size / 2, top + y * size + size / 2).0
}

#[test]
fn a_sheet_shows_image_amplified_perturbation_predictions_errors_and_truth() {
    let classes = run().classes;
    let picture = decode(&sheet("panels.png", &[panel(8.0 / 255.0)], &classes).unwrap().png);
    assert_eq!(at(&picture, 0, 3, 1), [128; 3]);
    // 15 × 8/255 = 120/255 above mid grey; the untouched pixel stays grey.
    assert_eq!((at(&picture, 1, 0, 0), at(&picture, 1, 1, 0)), ([128; 3], [248; 3]));
    assert_eq!((at(&picture, 2, 1, 0), at(&picture, 2, 0, 1)), (classes[0].color, classes[1].color));
    assert_eq!((at(&picture, 3, 1, 0), at(&picture, 3, 2, 1)), (classes[1].color, [255; 3]));
    let errors = [at(&picture, 4, 0, 0), at(&picture, 4, 1, 0), at(&picture, 4, 2, 1), at(&picture, 4, 3, 1)];
    assert_eq!(errors, [[236, 238, 241], [197, 48, 32], [197, 48, 32], [176, 182, 189]]);
    assert_eq!((at(&picture, 5, 0, 0), at(&picture, 5, 3, 1)), (classes[0].color, [0; 3]));
}

#[test]
fn a_perturbation_is_signed_and_none_at_all_stays_grey() {
    let classes = run().classes;
    let picture = decode(&sheet("panels.png", &[panel(-8.0 / 255.0)], &classes).unwrap().png);
    assert_eq!(at(&picture, 1, 1, 0), [8; 3]);
    let picture = decode(&sheet("panels.png", &[panel(0.0)], &classes).unwrap().png);
    assert_eq!(at(&picture, 1, 1, 0), [128; 3]);
}

#[test]
fn a_picture_of_the_wrong_size_is_refused_by_name() {
    let mut wrong = panel(0.1);
    wrong.after.pop();
    let error = sheet("panels.png", &[wrong], &run().classes).unwrap_err();
    assert!(matches!(&error, ReportError::Picture { found: 7, expected: 8, .. }));
    assert_eq!(error.to_string(), "panel unet · pgd: the prediction after has 7 values, expected 8");
    let mut empty = panel(0.1);
    (empty.height, empty.image) = (0, Vec::new());
    assert!(sheet("panels.png", &[empty], &run().classes).is_err());
}

#[test]
fn large_and_colour_pictures_are_drawn_too() {
    let (height, width) = (30, 900);
    let panel = Panel {
        caption: "wide".into(),
        height,
        width,
        range: [-1.0, 3.0],
        image: vec![1.0; 3 * height * width],
        adversarial: vec![1.5; 3 * height * width],
        labels: vec![0; height * width],
        before: vec![1; height * width],
        after: vec![2; height * width],
    };
    let picture = decode(&sheet("panels.png", &[panel], &run().classes).unwrap().png);
    assert!(picture.width() < 2700);
    // 0.5 of the range's 4 is an eighth: four times that just fits.
    assert_eq!(picture.get_pixel(32 + 412 + 200, 116 + 5).0, [255; 3]);
}
