#!/usr/bin/env bash
# WikiText-2 on a CPU, with three times the windows of wikitext2.sh for stages 2 and 3, and twelve times for stage 1: a
# three-stage prefix cascade 32 -> 64 -> 128 and a flat model, the same network for all, trained on the same windows.
# Then come the joint bound beside the flat one, and samples. Two models train side by side, one core each.
#
#   scripts/reproduce/wikitext2_longer.sh DATA OUT
#
# DATA holds train.txt.xz and valid.txt.xz of WikiText-2 (or train.txt and valid.txt); OUT is the folder of the results.
# Steps of flat, stage 2 and stage 3: STEPS (default below); stage 1 takes twice as many. If interrupted, the same
# command continues. The output of a run goes to OUT/<run>.log.
set -euo pipefail

data=${1:?usage: $0 DATA OUT}
out=${2:?usage: $0 DATA OUT}
steps=${STEPS:-1200}
cdllm=${CDLLM:-cdllm}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# shellcheck source=scripts/reproduce/wikitext2_runs.sh
source "$(dirname "$0")/wikitext2_runs.sh"
# shellcheck source=scripts/reproduce/arms.sh
source "$(dirname "$0")/arms.sh"

# NAME STEPS SETTING...
train_here() {
    local name=$1 num_steps=$2
    shift 2
    train "$out/$name" "$num_steps" training.ema=0.995 "training.eval_every=$((steps / 4))" \
        "training.snapshot_every=$((steps / 4))" model.copy_head=false "$@"
}

# Stage 1 is short and cheap, and its words say little about each other: it needs more windows, and regularization
# against memorizing them.
stage_1() {
    train_here stage1 "$((2 * steps))" --stage 1 training.batch_size=64 model.dropout=0.1 optim.weight_decay=0.1
}
one_lane() { train_here flat "$steps" --flat && stage_1; }
other_lane() { train_here stage3 "$steps" --stage 3 && train_here stage2 "$steps" --stage 2; }
together one_lane other_lane

stages=(--stage "$out/stage1" --stage "$out/stage2" --stage "$out/stage3")
evaluate_cascade() {
    $cdllm evaluate likelihood "${stages[@]}" --data "$(folder valid)" --num-windows 512 --out "$out/cascade.json"
}
evaluate_flat() {
    $cdllm evaluate likelihood --stage "$out/flat" --data "$(folder valid)" --num-windows 512 --out "$out/flat.json"
}
together evaluate_cascade evaluate_flat
$cdllm sample "${stages[@]}" --num-samples 16 --output-dir "$out/samples"
$cdllm sample --stage "$out/flat" --num-samples 16 --output-dir "$out/samples_flat"
