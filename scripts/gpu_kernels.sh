#!/usr/bin/env bash
# Check on a machine without a GPU that each operator of training, evaluation and prediction has a
# GPU kernel in paddlepaddle-gpu 2.6.2, in an environment of its own (.venv-gpu-kernels; the package
# is 760 MB, 3 GB on disk). Not part of the test suite. The last result is scripts/gpu/kernels.json.
#
#   bash scripts/gpu_kernels.sh                       prints a table and rewrites kernels.json
#   bash scripts/gpu_kernels.sh --json result.json    writes another file
#   PYTHON=python3.10 bash scripts/gpu_kernels.sh     Python 3.9 to 3.12
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"

venv=$ROOT/.venv-gpu-kernels
if ! [[ -f $venv/.installed ]]; then
    python=$(find_python 12)
    "$python" -m venv --clear "$venv"
    require_libgomp "$venv/bin/python"
    "$venv/bin/python" -m pip install -q paddlepaddle-gpu==2.6.2 -e "$ROOT" \
        -c "$ROOT/scripts/constraints/paddle-2.6.txt"
    fix_opencv "$venv/bin/python"
    touch "$venv/.installed"
fi
[[ $# -gt 0 ]] || set -- --json "$ROOT/scripts/gpu/kernels.json"
exec "$venv/bin/python" "$ROOT/scripts/gpu/kernels.py" "$@"
