#!/bin/bash
# An evaluation as one Slurm job: one shard per process, merged at the end.
#
#   sbatch docs/jobs/slurm-srun.sh
#
#SBATCH --job-name=fireproof
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --output=fireproof-%j.log
set -euo pipefail

OUT=runs/camvid                # shards go to $OUT/shard-I, the merged run to $OUT/whole
BENCH=(--preset legacy --data camvid --root /data/camvid --weights runs/segpgd3-at/best.safetensors)

cd "$SLURM_SUBMIT_DIR"
cargo build --release --package xtask
export RAYON_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# `srun` gives every process its own SLURM_PROCID, from 0. The variable is read there, not here, where it is always 0.
export OUT
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 bash -c \
    'exec target/release/xtask bench "$@" --shard auto --out "$OUT/shard-$((SLURM_PROCID + 1))" --resume' bench "${BENCH[@]}"

folders=()
for ((i = 1; i <= SLURM_NTASKS; i++)); do folders+=("$OUT/shard-$i"); done
target/release/xtask report "${folders[@]}" --out "$OUT/whole"
