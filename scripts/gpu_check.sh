#!/usr/bin/env bash
# The first fifteen minutes with a GPU: doctor, a CPU against a GPU iteration, mixed precision, resume,
# sort against kthvalue, TF32 and cuDNN's search, time and memory of the published recipes, data
# loading, evaluation, export, two GPUs. Prints a table. Arguments are passed to scripts/gpu/check.py:
#
#   bash scripts/gpu_check.sh --json gpu.json         on a GPU; the README takes its numbers from there
#   bash scripts/gpu_check.sh --only step resume      some parts
#   bash scripts/gpu_check.sh --device cpu --quick    tries the check itself without a GPU
#   PYTHON=/path/to/python bash scripts/gpu_check.sh  a Python with liteseg and Paddle (default: .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"

python=${PYTHON:-$ROOT/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python
export PYTHONPATH=$ROOT
exec "$python" "$ROOT/scripts/gpu/check.py" "$@"
