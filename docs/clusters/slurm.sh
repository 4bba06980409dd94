#!/usr/bin/env bash
# A sweep on Slurm: one Ray per job, the sweep on its first node. The same sbatch continues where the last one was cut off.
#   export CINELORA=/shared/cinelora      # the clone with its .venv, seen by all nodes
#   sbatch docs/clusters/slurm.sh model=wan21_i2v_14b_480p data=film_480p train=film sample=film cluster=gpu \
#       lora.rank=4,8,16 seed=0,1,2 data.path=/shared/film study_dir=/shared/studies/film cache_dir=/shared/cache
# Options of sbatch before the script win over the lines below: --nodes=1, --gpus-per-node=4, --time=02:00:00.
#SBATCH --job-name=cinelora
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
# Ten minutes before the end Slurm sends TERM to this script; running trials then save a checkpoint and leave.
#SBATCH --signal=B:TERM@600
set -euo pipefail
refuse() { echo "slurm.sh: $1" >&2 && exit 2; }

[ -n "${SLURM_JOB_ID:-}" ] || refuse "this is a batch script: sbatch $0 SETTINGS"
[ -n "${CINELORA:-}" ] || refuse "CINELORA is not set: export CINELORA=FOLDER (the clone with its .venv, seen by all nodes), then sbatch again"
[ -x "$CINELORA/.venv/bin/python" ] || refuse "CINELORA=$CINELORA: no .venv/bin/python there; run 'make setup' in the clone"
study=""
for setting in "$@"; do case "$setting" in study_dir=*) study="${setting#study_dir=}" ;; esac; done
study="${study#[\"\']}" && study="${study%[\"\']}" # these quotes are for Hydra
[ -n "$study" ] || refuse "study_dir is not set: add study_dir=FOLDER, on a file system that all nodes see"
cd "$CINELORA"
mkdir -p "$study" 2>/dev/null && [ -w "$study" ] || refuse "study_dir=$study: cannot be written on $(hostname); name a folder on a file system that all nodes see"
source .venv/bin/activate

# Every node joins the Ray of the first. The token keeps others out. The port depends on the job, so that two jobs can share a node.
RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
first="$(scontrol show node "$first" --oneliner | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')"
ip="$(python -c 'import socket, sys; print(socket.gethostbyname(sys.argv[1]))' "$first")"
export ADDRESS="$ip:$((20000 + SLURM_JOB_ID % 10000))"
srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" bash -c '
  share="--num-cpus=$SLURM_CPUS_ON_NODE --num-gpus=${SLURM_GPUS_ON_NODE:-0} --disable-usage-stats --block"
  [ "$SLURM_NODEID" = 0 ] && exec ray start --head --node-ip-address="${ADDRESS%:*}" --port="${ADDRESS#*:}" --include-dashboard=false $share
  until ray start --address="$ADDRESS" $share; do sleep 3; done' >"$study/ray-$SLURM_JOB_ID.log" 2>&1 &
nodes=$!
for _ in $(seq 120); do # until the first node answers
  (exec 3<>"/dev/tcp/$ip/${ADDRESS#*:}") 2>/dev/null && break
  kill -0 "$nodes" 2>/dev/null || refuse "Ray did not start: see $study/ray-$SLURM_JOB_ID.log"
  sleep 1
done

python -m launch.sweep --multirun "$@" cluster.address="$ADDRESS" cluster.nodes="$SLURM_JOB_NUM_NODES" &
sweep=$!
trap 'kill -TERM $sweep 2>/dev/null' TERM
code=0
wait "$sweep" || code=$?
while kill -0 "$sweep" 2>/dev/null; do wait "$sweep" || code=$?; done # a TERM ends the first wait, not the sweep
kill "$nodes" 2>/dev/null || true
exit "$code"
