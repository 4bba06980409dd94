#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, for `make slurm-test`.
#   two_nodes.sh up DIR      starts munged, slurmctld and two slurmd; settings, logs and process ids go to DIR
#   two_nodes.sh down DIR    stops them by process id
# Needs root and Debian's slurm-wlm and munge. Ports 6917 to 6920 on 127.0.0.1 alone. Then: export SLURM_CONF=DIR/slurm.conf
set -euo pipefail
mode="${1:-}" dir="$(realpath -m "${2:-.}")"
start() { # NAME COMMAND...: in the background, its process id in DIR/NAME.pid
  local name="$1"
  shift
  "$@" >"$dir/$name.log" 2>&1 &
  echo $! >"$dir/$name.pid"
}
case "$mode" in
  up)
    for program in munged slurmctld slurmd sbatch; do
      command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
    done
    mkdir -p "$dir"/{state,n1,n2}
    chmod 755 "$dir"
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    cat >"$dir/slurm.conf" <<CONF
ClusterName=two_nodes
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=6917
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.own.pid
SlurmdPidFile=$dir/slurmd.%n.own.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
SchedulerParameters=sched_interval=2,sched_min_interval=200000
NodeName=n[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[6919-6920] CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    start munged munged --foreground --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
      --pid-file="$dir/munged.own.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    export SLURM_CONF="$dir/slurm.conf"
    start slurmctld slurmctld -D
    start slurmd.n1 slurmd -D -N n1
    start slurmd.n2 slurmd -D -N n2
    for _ in $(seq 60); do
      [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && echo "two nodes are up: export SLURM_CONF=$dir/slurm.conf" && exit 0
      sleep 0.5
    done
    sinfo >&2 || true
    tail -n 5 "$dir"/*.log >&2
    "$0" down "$dir"
    exit 1
    ;;
  down)
    for name in slurmd.n1 slurmd.n2 slurmctld munged; do
      [ -f "$dir/$name.pid" ] && kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
    done
    ;;
  *)
    echo "usage: $0 up DIR | down DIR" >&2
    exit 2
    ;;
esac
