//! The worst case over attacks, against every assignment where those can be tried.

use fireproof_metrics::{ClassCounts, MetricError, WorstCase, worst_case};
use proptest::prelude::*;

type Table = Vec<Vec<ClassCounts>>;

fn columns(table: &Table) -> Vec<Vec<&ClassCounts>> {
    table.iter().map(|images| images.iter().collect()).collect()
}

fn greedy(table: &Table, seed: u64) -> WorstCase {
    worst_case::miou(&columns(table), seed).unwrap().unwrap()
}

/// The pooled mIoU when image `i` gets attack `chosen[i]`.
fn pooled(table: &Table, chosen: &[usize]) -> f64 {
    let mut sum = ClassCounts::new(table[0][0].classes()).unwrap();
    chosen.iter().enumerate().for_each(|(image, &attack)| sum.merge(&table[attack][image]).unwrap());
    sum.miou().unwrap()
}

/// The smallest pooled mIoU over all assignments.
fn brute_force(table: &Table) -> f64 {
    let (attacks, images) = (table.len(), table[0].len());
    let chosen = |code: usize| (0..images).map(|image| code / attacks.pow(image as u32) % attacks).collect::<Vec<_>>();
    (0..attacks.pow(images as u32)).map(|code| pooled(table, &chosen(code))).fold(f64::MAX, f64::min)
}

/// `attacks × images` of `pixels` pixels: labels are the image's, predictions any of `classes` or one outside.
fn tables(classes: u8) -> impl Strategy<Value = Table> {
    (1usize..4, 1usize..5).prop_flat_map(move |(attacks, images)| {
        let labels = prop::collection::vec(prop::collection::vec(0..classes, 6), images);
        let predictions =
            prop::collection::vec(prop::collection::vec(prop::collection::vec(0..=classes, 6), images), attacks);
        (labels, predictions).prop_map(move |(labels, predictions)| {
            let image =
                |(labels, found): (&Vec<u8>, &Vec<u8>)| ClassCounts::count(classes as usize, labels, found).unwrap();
            predictions.iter().map(|attack| labels.iter().zip(attack).map(image).collect()).collect()
        })
    })
}

/// The same kind of table from a number, for counting how often the greedy rule finds the minimum.
fn numbered(number: u64) -> Table {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 20) % below) as u8
    };
    let labels: Vec<Vec<u8>> = (0..5).map(|_| (0..12).map(|_| next(3)).collect()).collect();
    let mut attack = || {
        labels
            .iter()
            .map(|labels| {
                let found: Vec<u8> = labels.iter().map(|_| next(3)).collect();
                ClassCounts::count(3, labels, &found).unwrap()
            })
            .collect()
    };
    (0..3).map(|_| attack()).collect()
}

#[test]
fn the_greedy_rule_finds_the_minimum_of_most_small_tables_and_is_close_in_the_others() {
    let gaps: Vec<f64> = (1..=300)
        .map(|number| {
            let table = numbered(number);
            greedy(&table, 0).score - brute_force(&table)
        })
        .collect();
    let exact = gaps.iter().filter(|gap| gap.abs() < 1e-12).count();
    let largest = gaps.iter().copied().fold(0.0, f64::max);
    assert_eq!(exact, 296);
    assert!(largest < 0.0011, "{largest}");
}

#[test]
fn where_one_image_decides_each_class_the_greedy_rule_is_exact() {
    // Class c occurs in image c only, and nobody predicts it elsewhere: the IoUs do not depend on one another, so the minimum
    // is each image's worst. Attack a leaves (image + 2a) mod 3 + 1 of 6 pixels right.
    let image = |class: usize, correct: usize| {
        let labels = vec![class as u8; 6];
        let found: Vec<u8> = (0..6).map(|pixel| if pixel < correct { class as u8 } else { 9 }).collect();
        ClassCounts::count(3, &labels, &found).unwrap()
    };
    let table: Table = (0..3).map(|a| (0..3).map(|i| image(i, (i + 2 * a) % 3 + 1)).collect()).collect();
    let worst = greedy(&table, 3);
    assert_eq!(worst.chosen, [0, 1, 2]);
    assert_eq!(worst.score, 1.0 / 6.0);
    assert!((brute_force(&table) - worst.score).abs() < 1e-12);
    // No single attack comes near.
    assert!((0..3).all(|attack| pooled(&table, &[attack; 3]) > 0.3));
}

#[test]
fn the_attack_that_hurts_most_stays_and_not_the_last_that_helps() {
    // The reference code compares with a score that it refreshes after the loop over attacks, so the last improvement wins. On
    // this table that ends at 0.2, in whatever order the images come; the minimum is 2/15.
    let labels = [[2u8, 1, 0, 0], [0, 0, 2, 2]];
    let predictions = [[[0u8, 2, 0, 2], [0, 1, 2, 1]], [[0, 0, 0, 0], [1, 1, 2, 1]], [[2, 0, 0, 1], [0, 0, 1, 1]]];
    let image = |(labels, found): (&[u8; 4], &[u8; 4])| ClassCounts::count(3, labels, found).unwrap();
    let table: Table = predictions.iter().map(|attack| labels.iter().zip(attack).map(image).collect()).collect();
    assert!((brute_force(&table) - 2.0 / 15.0).abs() < 1e-12);
    for seed in 0..20 {
        let worst = greedy(&table, seed);
        assert_eq!(worst.chosen, [0, 1]);
        assert!((worst.score - 2.0 / 15.0).abs() < 1e-12);
    }
}

#[test]
fn a_class_that_occurs_nowhere_shifts_no_other_class() {
    let gap = |counts: &ClassCounts| {
        // The same pixels with an unused class 1 between the classes 0 and 1.
        let widen = |values: &[u64]| {
            let mut wide = values.to_vec();
            wide.insert(1, 0);
            wide
        };
        let parts = [counts.intersections(), counts.labels(), counts.predictions()].map(widen);
        let [intersections, labels, predictions] = parts;
        ClassCounts::from_parts(intersections, labels, predictions).unwrap()
    };
    for number in 1..=50 {
        let table = numbered(number);
        let wide: Table = table.iter().map(|images| images.iter().map(gap).collect()).collect();
        assert_eq!(greedy(&wide, number), greedy(&table, number));
    }
}

#[test]
fn a_class_of_one_image_comes_back_after_that_image_was_taken_out() {
    // While image 1 is taken out of the totals, class 1 has no union at all.
    let count = |labels: [u8; 4], found: [u8; 4]| ClassCounts::count(3, &labels, &found).unwrap();
    let table: Table = vec![
        vec![count([0, 0, 2, 2], [0, 0, 2, 0]), count([1, 1, 2, 2], [1, 1, 2, 2])],
        vec![count([0, 0, 2, 2], [0, 0, 2, 2]), count([1, 1, 2, 2], [1, 9, 9, 2])],
    ];
    let worst = greedy(&table, 1);
    assert_eq!(worst.chosen, [0, 1]);
    assert!((worst.score - brute_force(&table)).abs() < 1e-12);
    assert!((worst.score - (2.0 / 3.0 + 1.0 / 2.0 + 2.0 / 4.0) / 3.0).abs() < 1e-12);
}

#[test]
fn pixel_accuracy_takes_the_minimum_of_each_image_and_the_first_of_equals() {
    let image = |correct: usize, pixels: usize| {
        let found: Vec<u8> = (0..pixels).map(|pixel| u8::from(pixel >= correct) * 9).collect();
        ClassCounts::count(1, &vec![0u8; pixels], &found).unwrap()
    };
    let void = ClassCounts::new(1).unwrap();
    let table: Table = vec![
        vec![image(3, 4), image(2, 8), void.clone(), image(1, 2)],
        vec![image(1, 4), image(6, 8), void, image(1, 2)],
    ];
    let worst = worst_case::pixel_accuracy(&columns(&table)).unwrap().unwrap();
    assert_eq!(worst.chosen, [1, 0, 0, 0]);
    assert_eq!(worst.score, (1.0 / 4.0 + 2.0 / 8.0 + 1.0 / 2.0) / 3.0);
}

#[test]
fn tables_without_scores_have_no_worst_case_and_mixed_up_tables_are_refused() {
    let void = ClassCounts::new(2).unwrap();
    for table in [vec![], vec![vec![]], vec![vec![&void], vec![&void]]] {
        assert_eq!(worst_case::pixel_accuracy(&table).unwrap(), None);
        assert_eq!(worst_case::miou(&table, 0).unwrap(), None);
    }
    let (one, other) = (ClassCounts::count(2, &[0u8], &[0u8]).unwrap(), ClassCounts::count(2, &[1u8], &[0u8]).unwrap());
    let three = ClassCounts::count(3, &[0u8], &[0u8]).unwrap();
    let complaint = |table: &[Vec<&ClassCounts>]| match worst_case::miou(table, 0) {
        Err(MetricError::Table(message)) => message,
        other => panic!("not refused: {other:?}"),
    };
    assert!(complaint(&[vec![&one], vec![&one, &one]]).contains("attack 1 has 2 images, expected 1"));
    assert!(complaint(&[vec![&one], vec![&other]]).contains("image 0 has other labels under attack 1"));
    assert!(complaint(&[vec![&one, &three]]).contains("different numbers of classes"));
}

proptest! {
    #[test]
    fn the_greedy_score_lies_between_the_minimum_and_the_strongest_attack(table in tables(3), seed in 0u64..1000) {
        let worst = greedy(&table, seed);
        prop_assert!((worst.score - pooled(&table, &worst.chosen)).abs() < 1e-12, "the score is that of the assignment");
        prop_assert!(worst.score >= brute_force(&table) - 1e-12);
        for attack in 0..table.len() {
            prop_assert!(worst.score <= pooled(&table, &vec![attack; table[0].len()]) + 1e-12);
        }
    }

    #[test]
    fn no_other_attack_on_a_single_image_gains_more_than_the_last_round(table in tables(2), seed in 0u64..1000) {
        let worst = greedy(&table, seed);
        for image in 0..table[0].len() {
            for attack in 0..table.len() {
                let mut other = worst.chosen.clone();
                other[image] = attack;
                prop_assert!(pooled(&table, &other) > worst.score - 2e-6);
            }
        }
    }

    #[test]
    fn the_worst_pixel_accuracy_is_the_minimum_over_all_assignments(table in tables(3)) {
        let worst = worst_case::pixel_accuracy(&columns(&table)).unwrap().unwrap();
        let least = |image: usize| {
            table.iter().filter_map(|images| images[image].pixel_accuracy()).fold(f64::MAX, f64::min)
        };
        let mean = (0..table[0].len()).map(least).sum::<f64>() / table[0].len() as f64;
        prop_assert!((worst.score - mean).abs() < 1e-12);
    }
}
