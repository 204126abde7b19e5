#!/usr/bin/env bash
# Train on several machines with Slurm. Arguments are those of `liteseg train`.
#
#   sbatch --nodes 4 scripts/cluster/slurm.sh --config my.yml --output output/my
#
# Two minutes before the time limit the run saves a checkpoint and ends; the same command resumes it.
# Only the first machine needs the folder of --output; each needs the data.
#
#   PYTHON  a Python with liteseg (default: .venv in the folder of sbatch, else `python`)
#
#SBATCH --job-name=liteseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

python=${PYTHON:-$PWD/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python
master=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A port of its own for each job, should two of them share a machine.
export PYTHON=$python MASTER=$master:$((16170 + SLURM_JOB_ID % 10000))
PID_FILE=$(mktemp)
export PID_FILE
# shellcheck disable=SC2016  # expanded by each task
srun --kill-on-bad-exit=0 bash -c '[[ $SLURM_NODEID != 0 ]] || echo $$ >"$PID_FILE"
    exec "$PYTHON" -m liteseg train \
    --nodes "$SLURM_NNODES" --master "$MASTER" --node-rank "$SLURM_NODEID" \
    --devices "${SLURM_GPUS_ON_NODE:-1}" --resume auto "$@"' liteseg "$@" &
# Slurm would signal every process of the tasks, also the workers that load the data. The first
# task runs on this machine, and stops all.
trap 'kill -TERM "$(<"$PID_FILE")"' TERM
code=0
wait $! || code=$?
[[ $code != 143 ]] || { code=0 && wait $! || code=$?; } # the trap has ended the first `wait`
rm -f "$PID_FILE"
exit "$code"
