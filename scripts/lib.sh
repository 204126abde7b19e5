# What the other scripts share; they source it under `set -euo pipefail`.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# The comment at the top of the running script, if its first argument asks for help.
help_if_asked() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
    fi
}

# find_python NEWEST: a Python 3.9 to 3.NEWEST that can make a virtual environment.
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
Install one, or name it: PYTHON=/path/to/python bash $0"
}

# make_venv FOLDER EXTRAS LINE: liteseg with the tested set of that Paddle line, in a virtual
# environment. Does nothing when it is there and neither setup.py nor the set has changed.
make_venv() {
    local venv=$1 extras=$2 line=$3 newest=13 python stamp
    local constraints=$ROOT/scripts/constraints/paddle-$line.txt
    [[ -f $constraints ]] || die "PADDLE is '$line'; the tested lines are 3.3 and 2.6."
    stamp="$ROOT $extras $(cat "$ROOT/setup.py" "$constraints" | cksum)"
    if [[ -f $venv/.installed && $(<"$venv/.installed") == "$stamp" ]]; then
        return
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then # none yet, or half of one
        [[ $line != 2.6 ]] || newest=12
        python=$(find_python "$newest")
        "$python" -m venv --clear "$venv"
    fi
    python=$venv/bin/python
    require_libgomp "$python"
    echo "Installing liteseg into $venv (once; 1.4 GB on disk, 1.9 with export)"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$python" -m pip install -q --upgrade pip -c "$constraints"
    "$python" -m pip install -e "${ROOT}[$extras]" -c "$constraints" |
        sed -unE 's/^ *((Downloading|Using cached) .*MB\)|Installing collected packages).*/  \1/p'
    mend_opencv "$python"
    "$python" -c 'import liteseg, paddle' || die "liteseg is installed in $venv but cannot start."
    echo "$stamp" >"$venv/.installed"
}

# opencv-python links to libraries of a desktop (libGL …) that servers lack. The headless build of
# the same version has the same functions but for windows, which liteseg never opens.
mend_opencv() {
    local python=$1 version
    if "$python" -c 'import cv2' 2>/dev/null; then
        return
    fi
    version=$("$python" -c 'from importlib.metadata import version as v; print(v("opencv-python"))')
    echo "  this machine has no libGL: taking opencv-python-headless"
    "$python" -m pip install -q --no-deps --force-reinstall "opencv-python-headless==$version"
}

# Paddle's wheels need the OpenMP library of gcc, which small installations of Debian lack.
require_libgomp() {
    "$1" -c 'import ctypes, sys; sys.platform != "linux" or ctypes.CDLL("libgomp.so.1")' \
        2>/dev/null || die "Paddle needs the library libgomp.so.1; run
  sudo apt-get update && sudo apt-get install -y libgomp1
and start again."
}

# encoder_of MODEL: the encoder's name in config names.
encoder_of() {
    case $1 in
        t) echo stdc1 ;;
        b) echo stdc2 ;;
        *) die "MODEL is '$1'; it must be t (STDC1) or b (STDC2)." ;;
    esac
}

# train CONFIG DATA_ROOT [ARGUMENT…]: liteseg train with that data and $DEVICES, $OUTPUT, $PYTHON.
train() {
    local config=$1 data python=${PYTHON:-$ROOT/.venv/bin/python} devices=${DEVICES:-}
    data=$(cd "$2" && pwd)
    shift 2
    [[ -n ${PYTHON:-} || -x $python ]] || python=python
    "$python" -c 'from importlib.util import find_spec as f; exit(not (f("liteseg") and f("paddle")))' \
        2>/dev/null || die "$python has no liteseg or no Paddle. Run  bash scripts/quickstart.sh
(it makes .venv), or name a Python that has both: PYTHON=/path/to/python bash $0"
    # Paddle's count, not nvidia-smi's: a Paddle built for the CPU sees no GPU.
    [[ -n $devices ]] || devices=$("$python" -c \
        'import liteseg, paddle; print(max(1, paddle.device.cuda.device_count()))')
    set -- train --config "$config" --devices "$devices" \
        --output "${OUTPUT:-$ROOT/output/$(basename "$config" .yml)}" \
        --set "train_dataset.dataset_root=$data" --set "val_dataset.dataset_root=$data" "$@"
    echo "liteseg$(printf ' %q' "$@")"
    exec "$python" -m liteseg "$@"
}
