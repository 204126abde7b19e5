#!/usr/bin/env bash
# Time liteseg against PaddleSeg (its release on PyPI) on this machine: the same work in turns, both
# on Paddle 2.6.2 and 3.3.1. Makes .venv (liteseg) and .venv-paddleseg-… if they are missing.
# Arguments are passed to compare.py:
#
#   bash scripts/bench/run.sh                                         on synthetic streets
#   bash scripts/bench/run.sh --cityscapes DIR --camvid DIR           on real data
#   bash scripts/bench/run.sh --rounds 15 --json speed.json
#   PYTHON=python3.11 bash scripts/bench/run.sh                       the Python of the environments
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_if_requested "$@"

make_venv "$ROOT/.venv" cpu,fast 3.3
pins=$ROOT/scripts/bench/paddleseg.txt
peers=()
for paddle in 2.6.2 3.3.1; do
    peer=$ROOT/.venv-paddleseg-$paddle
    if ! cmp -s "$pins" "$peer/.installed"; then
        "$(find_python 11)" -m venv --clear "$peer"
        echo "Installing PaddleSeg into $peer (once; 1 GB on disk)"
        "$peer/bin/python" -m pip install -q -r "$pins" "paddlepaddle==$paddle"
        fix_opencv "$peer/bin/python"
        cp "$pins" "$peer/.installed"
    fi
    peers+=(--paddleseg "$peer/bin/python")
done
exec "$ROOT/.venv/bin/python" "$ROOT/scripts/bench/compare.py" "${peers[@]}" \
    --liteseg "$ROOT/.venv-paddleseg-2.6.2/bin/python" --liteseg "$ROOT/.venv/bin/python" "$@"
