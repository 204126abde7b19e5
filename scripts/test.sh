#!/usr/bin/env bash
# Lint and test liteseg in a separate environment (.venv-test). Arguments are passed to pytest:
#
#   bash scripts/test.sh                          everything, as CI does
#   bash scripts/test.sh tests/models -x -q       some tests
#   PADDLE=2.6 bash scripts/test.sh               with the other tested Paddle (.venv-test-2.6)
#   bash scripts/test.sh -n 0                     in one process (two by default)
#   PYTHON=python3.9 bash scripts/test.sh         the Python of the environment
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"
cd "$ROOT"

paddle=${PADDLE:-3.3}
venv=.venv-test
[[ $paddle == 3.3 ]] || venv=.venv-test-$paddle
extras=cpu,fast,data,ray,test,video,export
[[ $paddle == 3.3 ]] || extras=cpu,fast,test # tests of the other two are skipped
make_venv "$venv" "$extras" "$paddle"

if [[ $paddle == 3.3 ]]; then # the other line's NumPy and OpenCV have other type stubs
    "$venv/bin/python" -m ruff check .
    "$venv/bin/python" -m ruff format --check .
    "$venv/bin/python" -m mypy
fi
"$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
