use std::collections::BTreeSet;

use fireproof_report::{Part, ReportError, Shard};
use proptest::prelude::*;

#[test]
fn a_shard_is_written_and_read_as_i_of_n_from_1() {
    let shard: Shard = "2/4".parse().unwrap();
    assert_eq!((shard.index(), shard.of(), shard.to_string()), (2, 4, "2/4".to_owned()));
    for wrong in [
        "0/4",
        "5/4",
        "1/0",
        "0/0",
        "2",
        "a/4",
        "2/b",
        "2/4/1",
        "-1/4",
        "",
        "1 / 4",
        "1/100001",
        "99999999999/99999999999",
    ] {
        let error = wrong.parse::<Shard>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("--shard: found {wrong}")) && error.contains("i/n"), "{error}");
    }
    assert!(matches!(Shard::new(3, 2), Err(ReportError::Shard { .. })));
}

#[test]
fn images_at_regular_distances_are_dealt_out_evenly() {
    // Every 30th frame of a video: ids modulo 2 would all be equal.
    let ids: Vec<u64> = (0..10).map(|frame| 30 * frame).collect();
    let sizes: Vec<usize> = (1..=4).map(|index| Shard::new(index, 4).unwrap().split(&ids).len()).collect();
    assert_eq!(sizes, [3, 3, 2, 2]);
    assert_eq!(Shard::new(2, 4).unwrap().split(&ids), [30, 150, 270]);
}

#[test]
fn a_header_keeps_the_shard_as_text_and_its_images() {
    let part = Part::new("2/3".parse().unwrap(), &[4, 1, 9, 7]);
    let text = serde_json::to_string(&part).unwrap();
    assert_eq!(text, r#"{"shard":"2/3","images":[4]}"#);
    assert_eq!(serde_json::from_str::<Part>(&text).unwrap(), part);
    assert!(serde_json::from_str::<Part>(r#"{"shard":"4/3","images":[]}"#).is_err());
}

proptest! {
    #[test]
    fn shards_are_disjoint_complete_even_and_blind_to_the_order(
        (ids, shuffled) in prop::collection::btree_set(any::<u64>(), 0..60).prop_flat_map(|ids| {
            let ids: Vec<u64> = ids.into_iter().collect();
            (Just(ids.clone()), Just(ids).prop_shuffle())
        }),
        of in 1u32..20,
    ) {
        let shards: Vec<Vec<u64>> = (1..=of).map(|index| Shard::new(index, of).unwrap().split(&shuffled)).collect();
        let all: Vec<u64> = shards.iter().flatten().copied().collect();
        prop_assert_eq!(all.len(), ids.len(), "disjoint");
        prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), ids.iter().copied().collect::<BTreeSet<_>>(), "complete");
        let sizes: Vec<usize> = shards.iter().map(Vec::len).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        for (index, shard) in (1..=of).zip(&shards) {
            prop_assert!(shard.is_sorted());
            prop_assert_eq!(shard, &Shard::new(index, of).unwrap().split(&ids));
        }
    }
}
