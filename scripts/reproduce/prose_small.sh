#!/usr/bin/env bash
# `model=small` on one GPU, three arms of equal size at equal training token-forwards: a flat model, and three-stage
# cascades 32 -> 64 -> 128 whose later stages have a prefix and a copy head, or places. The cascades share their first
# stage. Then come the joint bounds, samples of each, and tables of both and of the course of the bounds.
#
#   scripts/reproduce/prose_small.sh TRAIN VALID OUT
#
# TRAIN and VALID are folders that `cdllm preprocess` made with GPT-2's tokenizer; OUT is the folder of the results.
# STEPS is the number of steps of a stage, a multiple of 16, SEED the seed (defaults below). Models that do not need
# each other train side by side on the one GPU, which keeps it busy while one of them waits for its processor; their
# peak memory adds up to 44 GB. If interrupted, the same command continues. The output of a run goes to
# OUT/seed<seed>/<run>.log.
set -euo pipefail

usage="usage: $0 TRAIN VALID OUT"
data=${1:?$usage}
valid=${2:?$usage}
out=${3:?$usage}
steps=${STEPS:-1024}
seed=${SEED:-0}
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
# The table of the course has the bound at every eighth of the steps, also for the flat model with its 5 / 2 STEPS.
if ((steps < 16 || steps % 16)); then
    echo "STEPS is $steps; it must be a multiple of 16, so that every eighth of a training is a whole step" >&2
    exit 2
fi

# shellcheck source=scripts/reproduce/arms.sh
source "$(dirname "$0")/arms.sh"

run=$out/seed$seed
mkdir -p "$run"

# NAME STEPS SETTING...
train() {
    local name=$1 num_steps=$2
    shift 2
    echo "$run/$name: training, see $run/$name.log"
    $cdllm train --data "$data" --valid "$valid" --lengths 32,64,128 --model small --out "$run/$name" \
        "training.num_steps=$num_steps" training.batch_size=128 training.ema=0.99 training.t_min=0.01 \
        training.log_every=16 "training.eval_every=$((num_steps / 8))" training.eval_windows=128 training.eval_times=4 \
        "training.snapshot_every=$num_steps" training.keep=1 training.compile=true "training.seed=$seed" dtype=bfloat16 \
        model.dropout=0 model.parameterization=normalized model.time_conditioning=false model.prefix_attention=one_way \
        optim.lr=6e-4 optim.beta2=0.98 optim.warmup=100 optim.decay=cosine \
        sampling.predictor=first_hitting sampling.num_samples=2 "$@" >"$run/$name.log" 2>&1 ||
        { echo "$run/$name: failed" >&2; tail -n 5 "$run/$name.log" >&2; return 1; }
}
# Positions a window: flat 128; stage 1 32; with a prefix 32 + 64 and 64 + 128; placed 64 and 128, and the layouts' 33
# and 65. So a cascade takes 320 or 322 for a window of every stage, and the flat model gets 5 / 2 of the steps of a
# stage.
flat() { train flat "$((steps * 5 / 2))" --flat; }
short_stages() { train stage1 "$steps" --stage 1 && train copy2 "$steps" --stage 2 && train placed2 "$steps" --stage 2 conditioning=placed; }
copy_3() { train copy3 "$steps" --stage 3; }
placed_3() { train placed3 "$steps" --stage 3 conditioning=placed; }
together flat short_stages copy_3 placed_3

flat_figures() { figures flat; }
copy_figures() { figures copy; }
placed_figures() { figures placed; }
together flat_figures copy_figures placed_figures
$python "$(dirname "$0")/arms_table.py" "$out"
