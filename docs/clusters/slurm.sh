#!/usr/bin/env bash
# sbatch docs/clusters/slurm.sh lora.rank=4,8,16 seed=0,1,2 data.path=/shared/film study_dir=/shared/studies/film
# One Ray per allocation; the sweep runs on the first node. The same sbatch continues where the last one was cut off.
#SBATCH --job-name=cinelora
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
# Ten minutes before the end Slurm signals the batch step; running trials then save a checkpoint and leave.
#SBATCH --signal=B:TERM@600
set -euo pipefail
: "${CINELORA:?folder of the clone with its .venv, seen by all nodes}"
cd "$CINELORA"
source .venv/bin/activate
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN="$(openssl rand -hex 32)"
study=""
for item in "$@"; do case "$item" in study_dir=*) study="${item#study_dir=}" ;; esac; done
: "${study:?give study_dir=... on the shared file system}"
trap 'python -m launch.status "$study" --stop; wait' TERM
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --include-dashboard=false \
  -- python -m launch.sweep --multirun model=wan21_i2v_14b_480p data=film_480p train=film sample=film cluster=gpu "$@" &
wait $!
