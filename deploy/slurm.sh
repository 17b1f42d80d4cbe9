#!/usr/bin/env bash
# One run of fedsim on the nodes of a SLURM job:  sbatch deploy/slurm.sh my.yaml runs/my
# The same line again goes on with a run that has not come to its end.
# Change the #SBATCH lines to what the run needs; the rest of this file stays. docs/cluster.md says more.
#SBATCH --job-name=fedsim
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --output=%x-%j.log

set -euo pipefail

experiment=${1:?usage: sbatch deploy/slurm.sh EXPERIMENT.yaml RUN_FOLDER}
run=${2:?usage: sbatch deploy/slurm.sh EXPERIMENT.yaml RUN_FOLDER}
venv=${FEDSIM_VENV:-.venv}                   # on a file system that all nodes have
export PATH="$venv/bin:$PATH"

# Only this job's processes may use this Ray, and its sockets need a short folder.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
folder=/tmp/ray-$SLURM_JOB_ID
port=${RAY_PORT:-$((20000 + SLURM_JOB_ID % 10000))}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | tr ' ' '\n' | grep -m1 '\.')
cpus=${SLURM_CPUS_PER_TASK:-1}

parts=()
finish() {                                   # ends what was started here, and nothing else
  for part in "${parts[@]}"; do kill -TERM "$part" 2> /dev/null || true; done
  wait || true
  srun --ntasks="${#nodes[@]}" --ntasks-per-node=1 rm -rf -- "$folder" || true
}
trap finish EXIT

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
  ray start --head --block --node-ip-address="$ip" --port="$port" --num-cpus="$cpus" \
  --include-dashboard=false --temp-dir="$folder" &
parts+=("$!")
for _ in {1..60}; do                         # until the head listens
  if (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; then break; fi
  sleep 1
done
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --nodelist="$node" \
    ray start --block --address="$ip:$port" --num-cpus="$cpus" &
  parts+=("$!")
done
python - "$ip:$port" "${#nodes[@]}" << 'PYTHON'
import sys
import time

import ray

ray.init(address=sys.argv[1], log_to_driver=False)
deadline = time.monotonic() + 120
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    if time.monotonic() > deadline:
        sys.exit(f"{sum(node['Alive'] for node in ray.nodes())} of {sys.argv[2]} nodes have joined within 120 s")
    time.sleep(1)
PYTHON

# Five minutes before the end SLURM sends SIGTERM: the run closes its tables, and the next job goes on with them.
fedsim run "$experiment" --address "$ip:$port" --out "$run" --resume &
driver=$!
trap 'kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if kill -0 "$driver" 2> /dev/null; then      # the signal ended the waiting, not the run
  status=0
  wait "$driver" || status=$?
fi
exit "$status"
