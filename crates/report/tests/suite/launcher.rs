use fireproof_report::launcher::{auto, warning};
use proptest::prelude::*;

const MPI: [(&str, &str); 2] = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")];
const ARRAY: [(&str, &str); 5] = [
    ("SLURM_ARRAY_TASK_ID", "12"),
    ("SLURM_ARRAY_TASK_MIN", "10"),
    ("SLURM_ARRAY_TASK_MAX", "14"),
    ("SLURM_ARRAY_TASK_STEP", "2"),
    ("SLURM_ARRAY_TASK_COUNT", "3"),
];
const PROCESS: [(&str, &str); 2] = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "5")];
const POD: [(&str, &str); 1] = [("JOB_COMPLETION_INDEX", "6")];

fn environment<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn found(variables: &[(&str, &str)], of: Option<u32>) -> String {
    auto(environment(variables), of).map_or_else(|error| error.to_string(), |found| found.to_string())
}

#[test]
fn each_launcher_is_understood_and_named_with_its_variables() {
    assert_eq!(found(&MPI, None), "shard 1/2 from Open MPI (OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2)");
    assert_eq!(
        found(&ARRAY, None),
        "shard 2/3 from Slurm job array (SLURM_ARRAY_TASK_ID=12, SLURM_ARRAY_TASK_MIN=10, SLURM_ARRAY_TASK_STEP=2, \
         SLURM_ARRAY_TASK_COUNT=3)"
    );
    assert_eq!(found(&PROCESS, None), "shard 4/5 from Slurm process (SLURM_PROCID=3, SLURM_NTASKS=5)");
    assert_eq!(found(&POD, Some(8)), "shard 7/8 from Kubernetes indexed job (JOB_COMPLETION_INDEX=6)");
}

#[test]
fn the_first_launcher_in_the_documented_order_wins() {
    let mut all: Vec<(&str, &str)> = [&MPI[..], &ARRAY, &PROCESS, &POD].concat();
    assert!(found(&all, None).contains("Open MPI"));
    all.retain(|(name, _)| !name.starts_with("OMPI"));
    assert!(found(&all, None).contains("Slurm job array"));
    all.retain(|(name, _)| !name.starts_with("SLURM_ARRAY"));
    assert!(found(&all, None).contains("Slurm process"));
    all.retain(|(name, _)| !name.starts_with("SLURM"));
    assert!(found(&all, Some(7)).contains("Kubernetes"));
}

#[test]
fn an_array_counts_from_its_own_first_index() {
    let array = |id: &str, min: &str, max: &str, count: &str| {
        let names = ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT"];
        let variables: Vec<(&str, &str)> = names.into_iter().zip([id, min, max, count]).collect();
        found(&variables, None)
    };
    assert!(array("0", "0", "3", "4").starts_with("shard 1/4"));
    assert!(array("1", "1", "4", "4").starts_with("shard 1/4"));
    assert!(array("4", "1", "4", "4").starts_with("shard 4/4"));
    // --array=1,5,7: which of the three is 5?
    let error = array("5", "1", "7", "3");
    assert!(error.contains("irregular Slurm array") && error.contains("SLURM_ARRAY_TASK_MAX=7"), "{error}");
    assert!(array("0", "1", "4", "4").contains("irregular"));
    assert!(array("5", "1", "4", "4").contains("process 4 of 4"));
}

#[test]
fn what_is_missing_wrong_or_contradictory_is_named() {
    assert!(
        found(&[], None)
            .contains("one of OMPI_COMM_WORLD_RANK, SLURM_ARRAY_TASK_ID, SLURM_PROCID and JOB_COMPLETION_INDEX")
    );
    assert!(found(&MPI[..1], None).contains("found no OMPI_COMM_WORLD_SIZE"));
    assert!(found(&PROCESS[..1], None).contains("found no SLURM_NTASKS"));
    assert!(found(&ARRAY[..1], None).contains("found no SLURM_ARRAY_TASK_MIN"));
    assert!(found(&POD, None).contains("JOB_COMPLETION_INDEX=6 without --of"));
    assert!(found(&POD, Some(6)).contains("process 6 of 6"));
    assert!(found(&[("SLURM_PROCID", "two"), PROCESS[1]], None).contains("SLURM_PROCID=two"));
    assert!(found(&[("SLURM_PROCID", "5"), PROCESS[1]], None).contains("process 5 of 5"));
    assert!(found(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "0")], None).contains("process 0 of 0"));
    assert!(found(&PROCESS, Some(4)).contains("--of 4, but SLURM_PROCID=3, SLURM_NTASKS=5"));
    assert!(found(&PROCESS, Some(5)).starts_with("shard 4/5"));
    // An empty variable is none, and the next launcher is asked.
    assert!(found(&[("SLURM_ARRAY_TASK_ID", ""), PROCESS[0], PROCESS[1]], None).contains("Slurm process"));
}

#[test]
fn several_processes_without_shard_are_warned_of_and_a_single_one_is_not() {
    let text = |variables: &[(&str, &str)]| warning(environment(variables));
    assert_eq!(text(&[]), None);
    assert_eq!(text(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]), None);
    for (variables, name) in
        [(&MPI[..], "Open MPI"), (&ARRAY, "Slurm job array"), (&PROCESS, "SLURM_PROCID=3"), (&POD, "Kubernetes")]
    {
        let text = text(variables).unwrap();
        assert!(text.contains(name) && text.contains("--shard auto"), "{text}");
    }
}

proptest! {
    #[test]
    fn every_process_of_a_launcher_gets_another_shard_and_none_is_left_over(of in 1u32..40, first in 0u32..9, step in 1u32..5) {
        let text = |number: u32| number.to_string();
        let shards = |variables: &dyn Fn(u32) -> Vec<(&'static str, String)>| -> Vec<u32> {
            (0..of).map(|rank| {
                let variables = variables(rank);
                let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
                let found = auto(lookup, Some(of)).unwrap();
                assert_eq!(found.shard.of(), of);
                found.shard.index()
            }).collect()
        };
        let all: Vec<u32> = (1..=of).collect();
        prop_assert_eq!(&shards(&|rank| vec![("OMPI_COMM_WORLD_RANK", text(rank)), ("OMPI_COMM_WORLD_SIZE", text(of))]), &all);
        prop_assert_eq!(&shards(&|rank| vec![("SLURM_PROCID", text(rank)), ("SLURM_NTASKS", text(of))]), &all);
        prop_assert_eq!(&shards(&|rank| vec![("JOB_COMPLETION_INDEX", text(rank))]), &all);
        prop_assert_eq!(&shards(&|rank| vec![
            ("SLURM_ARRAY_TASK_ID", text(first + rank * step)),
            ("SLURM_ARRAY_TASK_MIN", text(first)),
            ("SLURM_ARRAY_TASK_MAX", text(first + (of - 1) * step)),
            ("SLURM_ARRAY_TASK_STEP", text(step)),
            ("SLURM_ARRAY_TASK_COUNT", text(of)),
        ]), &all);
    }
}
