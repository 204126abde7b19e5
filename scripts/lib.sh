# Functions of the other scripts, which source this file under `set -euo pipefail`.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# help_if_requested [ARGUMENT…]: print the comment at the top of the script for -h or --help.
help_if_requested() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
    fi
}

# find_python NEWEST: the first Python 3.9 to 3.NEWEST that can make a virtual environment.
find_python() {
    local newest=$1 python without_venv=''
    local candidates=(python3 python3.12 python3.11 python3.10 python3.13 python3.9)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for python in "${candidates[@]}"; do
        "$python" -c "import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, $newest))" \
            2>/dev/null || continue
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$python"
            return
        fi
        without_venv=${without_venv:-$python}
    done
    [[ -z $without_venv ]] || die "$without_venv cannot make virtual environments; run
  sudo apt-get update && sudo apt-get install -y $(basename "$without_venv")-venv libgomp1
and start again."
    die "No Python 3.9 to 3.$newest among: ${candidates[*]}
Install one, or give its path: PYTHON=/path/to/python bash $0"
}

# make_venv FOLDER EXTRAS LINE: a virtual environment with liteseg and the tested packages of that
# Paddle line. Does nothing if it exists and neither setup.py nor the packages changed.
make_venv() {
    local venv=$1 extras=$2 line=$3 newest=13 python stamp
    local constraints=$ROOT/scripts/constraints/paddle-$line.txt
    [[ -f $constraints ]] || die "PADDLE is '$line'; the tested lines are 3.3 and 2.6."
    stamp="$ROOT $extras $(cat "$ROOT/setup.py" "$constraints" | cksum)"
    if [[ -f $venv/.installed && $(<"$venv/.installed") == "$stamp" ]]; then
        return
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then # missing or incomplete
        [[ $line != 2.6 ]] || newest=12
        python=$(find_python "$newest")
        "$python" -m venv --clear "$venv"
    fi
    python=$venv/bin/python
    require_libgomp "$python"
    echo "Installing liteseg into $venv (once; 1.4 GB on disk, 2.5 with all extras)"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$python" -m pip install -q --upgrade pip -c "$constraints"
    "$python" -m pip install -e "${ROOT}[$extras]" -c "$constraints" |
        sed -unE 's/^ *((Downloading|Using cached) .*MB\)|Installing collected packages).*/  \1/p'
    fix_opencv "$python"
    "$python" -c 'import liteseg, paddle' || die "liteseg is installed in $venv but cannot start."
    echo "$stamp" >"$venv/.installed"
}

# fix_opencv PYTHON: opencv-python links to desktop libraries (libGL …) that servers lack. The
# headless build has the same functions except windows, which liteseg never opens.
fix_opencv() {
    local python=$1 version
    if "$python" -c 'import cv2' 2>/dev/null; then
        return
    fi
    version=$("$python" -c 'from importlib.metadata import version as v; print(v("opencv-python"))')
    echo "  no libGL on this machine: using opencv-python-headless"
    "$python" -m pip install -q --no-deps --force-reinstall "opencv-python-headless==$version"
}

# require_libgomp PYTHON: Paddle's wheels need gcc's OpenMP library, which minimal Debian lacks.
require_libgomp() {
    "$1" -c 'import ctypes, sys; sys.platform != "linux" or ctypes.CDLL("libgomp.so.1")' \
        2>/dev/null || die "Paddle needs the library libgomp.so.1; run
  sudo apt-get update && sudo apt-get install -y libgomp1
and start again."
}

# encoder_of MODEL: the encoder in config names.
encoder_of() {
    case $1 in
        t) echo stdc1 ;;
        b) echo stdc2 ;;
        *) die "MODEL is '$1'; it must be t (STDC1) or b (STDC2)." ;;
    esac
}

# train CONFIG DATA_ROOT [ARGUMENT…]: run liteseg train with $DEVICES, $OUTPUT, $PYTHON, and on
# several machines $NODES, $MASTER and $NODE_RANK.
train() {
    local config=$1 data python=${PYTHON:-$ROOT/.venv/bin/python} devices=${DEVICES:-}
    data=$(cd "$2" && pwd)
    shift 2
    [[ -n ${PYTHON:-} || -x $python ]] || python=python
    "$python" -c 'from importlib.util import find_spec as f; exit(not (f("liteseg") and f("paddle")))' \
        2>/dev/null || die "$python has no liteseg or no Paddle. Run  bash scripts/quickstart.sh
(it makes .venv), or give a Python that has both: PYTHON=/path/to/python bash $0"
    # Paddle's count, not nvidia-smi's: Paddle built for the CPU sees no GPU.
    [[ -n $devices ]] || devices=$("$python" -c \
        'import liteseg, paddle; print(max(1, paddle.device.cuda.device_count()))')
    if [[ ${NODES:-1} != 1 ]]; then
        [[ -n ${MASTER:-} ]] || die "NODES is '$NODES', so MASTER must be HOST:PORT of one of them."
        set -- --nodes "$NODES" --master "$MASTER" "$@"
        [[ -z ${NODE_RANK:-} ]] || set -- --node-rank "$NODE_RANK" "$@"
    fi
    set -- train --config "$config" --devices "$devices" \
        --output "${OUTPUT:-$ROOT/output/$(basename "$config" .yml)}" \
        --set "train_dataset.dataset_root=$data" --set "val_dataset.dataset_root=$data" "$@"
    echo "liteseg$(printf ' %q' "$@")"
    exec "$python" -m liteseg "$@"
}
