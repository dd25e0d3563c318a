#!/usr/bin/env bash
# One host or several: each process evaluates its shard, the first gathers them. Built with `--features mpi`.
set -euo pipefail
processes=4
data=/data/CamVid
weights=runs/model/best.safetensors
out=runs/bench-mpi

cargo build --release --package xtask --features mpi
exec mpirun -n "$processes" target/release/xtask bench --data camvid --root "$data" --weights "$weights" --preset standard --out "$out" --resume
