#!/usr/bin/env bash
# From a fresh clone to a trained PP-LiteSeg-T: installs liteseg into .venv, generates synthetic
# street scenes (Streets), trains, evaluates and predicts. A second run reuses existing results.
#
#   bash scripts/quickstart.sh
#   PYTHON=python3.12 bash scripts/quickstart.sh      the Python of .venv
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"
cd "$ROOT"

make_venv .venv cpu,fast 3.3
export PATH="$ROOT/.venv/bin:$PATH"
streets=data/streets
run=output/quickstart

resume=()
if compgen -G "$run/checkpoints/*" >/dev/null; then
    resume=(--resume)
else
    rm -rf "$run" # stopped before its first checkpoint
fi
liteseg data streets --output "$streets"
liteseg train --config configs/quickstart.yml --output "$run" "${resume[@]}"
liteseg eval --config "$run/config.yml" --weights "$run" --json "$run/eval.json"
liteseg predict "$streets/leftImg8bit/val" --weights "$run" --what overlay --output "$run/overlays"

miou=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["miou"])' "$run/eval.json")
cat <<END

mIoU on the Streets val images: $(printf '%.4f' "$miou")
Overlays: $ROOT/$run/overlays
Next:     cd $ROOT && .venv/bin/liteseg predict photo.jpg   # with the newest run in output, this one
Curves:   $ROOT/.venv/bin/visualdl --logdir $ROOT/$run/vdl
To start over, first run: rm -r $ROOT/$run
END
