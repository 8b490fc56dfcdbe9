#!/usr/bin/env bash
# From nothing to a trained avatar, in one command: a dataset, a short training, measurements, and a video with audio that
# shows the recording and the render side by side.
# Usage: bash scripts/demo.sh [VIDEO] [FOLDER]
#   VIDEO   a video of a talking person; without it, a synthetic dataset is made
#   FOLDER  receives everything (default: demo/sample, or demo/ and the video's name)
set -euo pipefail
if [ $# -gt 2 ] || [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    echo "usage: bash scripts/demo.sh [VIDEO] [FOLDER]" >&2
    exit 2
fi
video=""
name=sample
if [ $# -gt 0 ]; then
    video="$(cd "$(dirname "$1")" 2>/dev/null && pwd)/$(basename "$1")"
    if [ ! -f "$video" ]; then
        echo "demo.sh: $1: no such file; give a video of a talking person (mp4, mov, webm, ...), or nothing" >&2
        exit 1
    fi
    name="$(basename "${video%.*}")"
fi
if [ $# -eq 2 ]; then
    mkdir -p "$2"
    folder="$(cd "$2" && pwd)"
fi
cd "$(dirname "$0")/.."
if [ $# -lt 2 ]; then
    mkdir -p "demo/$name"
    folder="demo/$name" # short in what is printed
fi
source scripts/environment.sh
export PYTHONWARNINGS="ignore::FutureWarning" # nerfstudio and torch, of each other
say() { printf '\n== %s\n' "$*"; }

# The schedule is in fractions of its length: a machine with a single core trains half as long.
steps=5000
if [ "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)" -lt 2 ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then steps=2500; fi

if [ -n "$video" ]; then
    say "1/4  a dataset from $video"
    degstalk process "$video" "$folder/data"
elif [ -e "$folder/data/transforms_train.json" ]; then
    say "1/4  the dataset is there: $folder/data"
else
    say "1/4  a synthetic talking-head dataset, 10 s at 512 x 512"
    degstalk sample "$folder/data" --seconds 10
fi

models="$folder/outputs/demo/degstalk-fast/latest/nerfstudio_models"
finished="$folder/outputs/demo/degstalk-fast/latest/finished"
config="$folder/outputs/demo/degstalk-fast/latest/config.yml"
resume=()
# What was trained before the dataset was made again is no use: only a newer training is resumed or taken as finished.
made="$folder/data/transforms_train.json"
if [ "$models" -nt "$made" ] && compgen -G "$models/*.ckpt" > /dev/null; then resume=(--load-dir "$models"); fi
last="$models/$(printf 'step-%09d.ckpt' $((steps - 1)))"
if [ "$finished" -nt "$made" ] || [ "$last" -nt "$made" ]; then
    say "2/4  already trained: $config"
else
    say "2/4  training, $steps steps"
    ns-train degstalk-fast --data "$folder/data" --output-dir "$folder/outputs" --experiment-name demo \
        --timestamp latest --vis tensorboard --max-num-iterations "$steps" ${resume[@]+"${resume[@]}"}
    touch "$finished"
fi

say "3/4  measuring on the frames that were held out from training"
ns-eval --load-config "$config" --output-path "$folder/eval.json"

say "4/4  the video: the recording on the left, the render on the right"
degstalk render --load-config "$config" --track all --side-by-side --output "$folder/demo.mp4" --overwrite

say "done"
python - "$folder/eval.json" <<'PY'
import json, sys

results = json.load(open(sys.argv[1]))["results"]
rows = {
    "psnr": ("PSNR", "dB, higher is better"),
    "psnr_hair": ("PSNR, hair", "dB"),
    "ssim": ("SSIM", "up to 1"),
    "lpips": ("LPIPS", "lower is better"),
    "lmd": ("LMD", "pixels between lip landmarks, lower is better"),
    "lip_opening_r_jaw": ("mouth follows jaw", "Pearson's r, up to 1"),
    "lips_l1_ratio_to_frozen": ("lips, error ratio", "divided by the error with frozen driving signals, below 1"),
    "fps": ("rendering", "frames/s"),
}
for key, (name, unit) in rows.items():
    print(f"  {name:18s} {results[key]:8.3f}  {unit}" if key in results else f"  {name:18s} not measured here (see above)")
PY
cat <<TEXT

  video          $folder/demo.mp4
  measurements   $folder/eval.json
  dataset        $folder/data          (look at contact_sheet.png)
  training       $config

Try next (after: source $VIRTUAL_ENV/bin/activate):
  ns-viewer --load-config $config
  degstalk render --load-config $config --audio speech.wav --output speaking.mp4
  degstalk process my_video.mp4 data/me
TEXT
