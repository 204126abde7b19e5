#!/usr/bin/env bash
# Train PP-LiteSeg on Cityscapes with a published recipe (160,000 iterations).
#
#   DATA_ROOT=/data/cityscapes MODEL=b SCALE=1.0 bash scripts/train_cityscapes.sh
#
#   MODEL      t (default) or b
#   SCALE      scale of the images in evaluation: 0.5 (default), 0.75 or 1.0
#   DATA_ROOT  the folder with leftImg8bit/ and gtFine/ (default: data/cityscapes)
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
scale=${SCALE:-0.5}
config=$ROOT/configs/pp_liteseg/pp_liteseg_${encoder}_cityscapes_1024x512_scale${scale}_160k.yml
[[ -f $config ]] || die "SCALE is '$scale'; it must be 0.5, 0.75 or 1.0."

data=${DATA_ROOT:-$ROOT/data/cityscapes}
for folder in leftImg8bit/train leftImg8bit/val gtFine/train gtFine/val; do
    [[ -d $data/$folder ]] || die "Cityscapes is not in $data: there is no $folder.

1. Register at https://www.cityscapes-dataset.com and download
     leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB)
2. Unpack both into one folder:
     $data/
       leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png
       gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png
   The labels are used as they are; labelTrainIds.png are used if present.
3. Start again, with the path if it is another folder:
     DATA_ROOT=/path/to/cityscapes bash scripts/train_cityscapes.sh

To try it without Cityscapes, on synthetic streets in the same layout:
     bash scripts/quickstart.sh
     DATA_ROOT=data/streets bash scripts/train_cityscapes.sh --output output/try \\
       --set iters=20 --set total_batch_size=4"
done
train "$config" "$data" "$@"
