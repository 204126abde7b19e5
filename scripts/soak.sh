#!/usr/bin/env bash
# Soak tests, too long for the test suite: trainings that are killed or long, and damaged files.
#
#   bash scripts/soak.sh kill --rounds 50         kill -9 at random times, --resume, compare results
#   bash scripts/soak.sh long --iters 10000       memory, files, threads and /dev/shm stay constant
#   bash scripts/soak.sh fuzz --seconds 60        damaged files of every format; no crash, hang or bomb
#                                                 (with atheris: pip install atheris==3.0.0)
#   PYTHON=/path/to/python bash scripts/soak.sh … a Python with liteseg and Paddle (default: .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"

case ${1:-} in
    kill | long | fuzz) ;;
    *) die "The first argument is '${1:-}'; it must be kill, long or fuzz." ;;
esac
python=${PYTHON:-$ROOT/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python
export PYTHONPATH=$ROOT:$ROOT/scripts/soak
script=$1
shift
exec "$python" "$ROOT/scripts/soak/$script.py" "$@"
