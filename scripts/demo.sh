#!/usr/bin/env bash
# From a video of a talking person to measured, rendered frames, in one command.
# Usage: bash scripts/demo.sh VIDEO [FOLDER]     (FOLDER, default "demo", receives dataset, training and renders)
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: bash scripts/demo.sh VIDEO [FOLDER]" >&2
    exit 2
fi
video="$(cd "$(dirname "$1")" 2>/dev/null && pwd)/$(basename "$1")"
if [ ! -f "$video" ]; then
    echo "demo.sh: $1: no such file; give a video of a talking person (mp4, mov, webm, ...)" >&2
    exit 1
fi
folder="${2:-demo}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
cd "$(dirname "$0")/.."
source scripts/environment.sh

degstalk process "$video" "$folder/data"
models="$folder/outputs/demo/degstalk-fast/latest/nerfstudio_models"
finished="$folder/outputs/demo/degstalk-fast/latest/finished"
resume=()
# What was trained before the dataset was made anew is no use: only a newer training is resumed or taken as finished.
made="$folder/data/transforms_train.json"
if [ "$models" -nt "$made" ] && compgen -G "$models/*.ckpt" > /dev/null; then resume=(--load-dir "$models"); fi
if [ ! "$finished" -nt "$made" ]; then
    ns-train degstalk-fast --data "$folder/data" --output-dir "$folder/outputs" --experiment-name demo \
        --timestamp latest --vis tensorboard ${resume[@]+"${resume[@]}"}
    touch "$finished"
fi
config="$folder/outputs/demo/degstalk-fast/latest/config.yml"
ns-eval --load-config "$config" --output-path "$folder/eval.json"
ns-render dataset --load-config "$config" --output-path "$folder/renders" --split test --rendered-output-names rgb gt-rgb

echo
python - "$folder/eval.json" <<'PY'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
for name in ("psnr", "ssim", "lpips", "lmd", "fps", "lips_l1_ratio_to_frozen"):
    print(f"{name:24s} {results[name]:.4f}" if name in results else f"{name:24s} not measured here")
PY
cat <<TEXT

dataset        $folder/data            (look at contact_sheet.png)
measurements   $folder/eval.json
frames         $folder/renders/test/rgb beside $folder/renders/test/gt-rgb

Next (after: source $VIRTUAL_ENV/bin/activate):
  ns-viewer --load-config $config --viewer.websocket-host 127.0.0.1
  ns-train degstalk --data $folder/data
  ns-render interpolate --load-config $config --output-path $folder/interpolated.mp4
TEXT
