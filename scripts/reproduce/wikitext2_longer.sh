#!/usr/bin/env bash
# WikiText-2 on a CPU, trained five times as long as by wikitext2.sh: a three-stage prefix cascade 32 -> 64 -> 128 and a
# flat model, the same network for all, trained on the same windows; then the joint bound beside the flat one, and samples.
# Stages do not wait for one another: two models train side by side, one core each.
#
#   scripts/reproduce/wikitext2_longer.sh DATA OUT
#
# DATA holds train.txt.xz and valid.txt.xz of WikiText-2 (or train.txt and valid.txt); OUT is the folder of the results.
# Steps of each model: STEPS (default below). Interrupted, it goes on where it was. What a run says goes to OUT/<run>.log.
set -euo pipefail

data=${1:?usage: $0 DATA OUT}
out=${2:?usage: $0 DATA OUT}
steps=${STEPS:-2000}
cdllm=${CDLLM:-cdllm}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# shellcheck source=scripts/reproduce/wikitext2_data.sh
source "$(dirname "$0")/wikitext2_data.sh"

# A run folder that has reached its last step is done at once.
train() {
    local name=$1
    shift
    echo "$name: training, see $out/$name.log"
    $cdllm train --data "$(folder train)" --valid "$(folder valid)" --lengths 32,64,128 --model tiny --out "$out/$name" \
        "training.num_steps=$steps" training.batch_size=32 training.ema=0.995 training.t_min=0.01 \
        training.log_every=50 "training.eval_every=$((steps / 4))" "training.snapshot_every=$((steps / 4))" \
        model.parameterization=normalized model.time_conditioning=false model.prefix_attention=one_way \
        optim.lr=2e-3 optim.beta2=0.98 optim.warmup=100 optim.decay=cosine \
        sampling.predictor=first_hitting model.copy_head=false "$@" >"$out/$name.log" 2>&1 ||
        { echo "$name: failed" >&2; tail -n 5 "$out/$name.log" >&2; return 1; }
}

# Stage 1 is short and cheap, and its words say little about each other: it needs more windows, and not to learn them by
# heart.
stage_1() {
    train stage1 --stage 1 "training.num_steps=$((steps + steps / 4))" training.batch_size=64 model.dropout=0.1 \
        optim.weight_decay=0.1
}
one_lane() { train flat --flat && stage_1; }
other_lane() { train stage3 --stage 3 && train stage2 --stage 2; }
both one_lane other_lane

stages=(--stage "$out/stage1" --stage "$out/stage2" --stage "$out/stage3")
evaluate_cascade() {
    $cdllm evaluate likelihood "${stages[@]}" --data "$(folder valid)" --num-windows 512 --out "$out/cascade.json"
}
evaluate_flat() {
    $cdllm evaluate likelihood --stage "$out/flat" --data "$(folder valid)" --num-windows 512 --out "$out/flat.json"
}
both evaluate_cascade evaluate_flat
$cdllm sample "${stages[@]}" --num-samples 16 --output-dir "$out/samples"
$cdllm sample --stage "$out/flat" --num-samples 16 --output-dir "$out/samples_flat"
