#!/usr/bin/env bash
# Lint and test liteseg in an environment of its own (.venv-test). Arguments go to pytest:
#
#   bash scripts/test.sh                          everything, as CI does
#   bash scripts/test.sh tests/models -x -q       some tests
#   PADDLE=2.6 bash scripts/test.sh               on the other tested line (.venv-test-2.6)
#   PYTHON=python3.9 bash scripts/test.sh         the Python that makes the environment
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
cd "$ROOT"

paddle=${PADDLE:-3.3}
venv=.venv-test
[[ $paddle == 3.3 ]] || venv=.venv-test-$paddle
extras=cpu,fast,test,export
[[ $paddle == 3.3 ]] || extras=cpu,fast,test # the converters are of Paddle 3; their tests skip, and say so
make_venv "$venv" "$extras" "$paddle"

"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
"$venv/bin/python" -m mypy
"$venv/bin/python" -m pytest "$@"
