#!/usr/bin/env bash
# Soak tests, too long for the test suite: training that is killed again and again, and a long run.
#
#   bash scripts/soak.sh kill --rounds 50         kill -9 at random moments, then --resume; exact?
#   bash scripts/soak.sh long --steps 10000       memory, files, threads and /dev/shm stay flat?
#   PYTHON=/path/to/python bash scripts/soak.sh … a Python with liteseg and Paddle (.venv's)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"

case ${1:-} in
    kill | long) ;;
    *) die "The first argument is '${1:-}'; it must be kill or long." ;;
esac
python=${PYTHON:-$ROOT/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python
export PYTHONPATH=$ROOT:$ROOT/scripts/soak
script=$1
shift
exec "$python" "$ROOT/scripts/soak/$script.py" "$@"
