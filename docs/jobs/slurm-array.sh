#!/bin/bash
# An evaluation as a Slurm job array: one shard per task, merged when all are done.
#
#   bash docs/jobs/slurm-array.sh
#
# Submits two jobs: the array, and a merge that starts when every task of it has succeeded. If a task failed, run this file
# again: finished shards cost nothing, the others go on where they were.
set -euo pipefail

SHARDS=8                       # how many tasks
OUT=runs/camvid                # shards go to $OUT/shard-I, the merged run to $OUT/whole
TIME=04:00:00                  # of one shard
CPUS=8
MEMORY=16G
BENCH=(--preset legacy --data camvid --root /data/camvid --weights runs/segpgd3-at/best.safetensors)

cd "${SLURM_SUBMIT_DIR:-$(pwd)}"

case "${1:-submit}" in
submit)
    # Once, so that the tasks do not wait for one another's builds.
    cargo build --release --package xtask
    mkdir -p "$OUT"
    array=$(sbatch --parsable --job-name=fireproof --array="1-$SHARDS" --time="$TIME" \
        --cpus-per-task="$CPUS" --mem="$MEMORY" --output="$OUT/shard-%a.log" "$0" shard)
    sbatch --job-name=fireproof-merge --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes --time=00:10:00 \
        --cpus-per-task=1 --mem=4G --output="$OUT/merge.log" "$0" merge
    ;;
shard)
    export RAYON_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
    target/release/xtask bench "${BENCH[@]}" --shard auto \
        --out "$OUT/shard-$SLURM_ARRAY_TASK_ID" --resume
    ;;
merge)
    folders=()
    for ((i = 1; i <= SHARDS; i++)); do folders+=("$OUT/shard-$i"); done
    target/release/xtask report "${folders[@]}" --out "$OUT/whole"
    ;;
*)
    echo "usage: bash $0" >&2
    exit 2
    ;;
esac
