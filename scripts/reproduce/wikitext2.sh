#!/usr/bin/env bash
# WikiText-2 on a CPU: three-stage cascades 32 -> 64 -> 128, prefix and placed, which share their first stage, and a flat
# model, the same network for all, trained on the same windows; then the joint bounds beside the flat one, and samples.
# Stages do not wait for one another: two models train side by side, one core each, which two cores do better than one
# model with two threads.
#
#   scripts/reproduce/wikitext2.sh DATA OUT
#
# DATA holds train.txt.xz and valid.txt.xz of WikiText-2 (or train.txt and valid.txt); OUT is the folder of the results.
# Steps of each model: STEPS, seed of all: SEED (defaults below). Interrupted, it goes on where it was. What a run says
# goes to OUT/<run>.log.
set -euo pipefail

data=${1:?usage: $0 DATA OUT}
out=${2:?usage: $0 DATA OUT}
steps=${STEPS:-2000}
seed=${SEED:-0}
cdllm=${CDLLM:-cdllm}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

file() { if [ -e "$data/$1.txt.xz" ]; then echo "$data/$1.txt.xz"; else echo "$data/$1.txt"; fi; }
folder() { echo "$out/data/constituency/wikitext2_$1"; }
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
        sampling.predictor=first_hitting "training.seed=$seed" "$@" >"$out/$name.log" 2>&1 ||
        { echo "$name: failed" >&2; tail -n 5 "$out/$name.log" >&2; return 1; }
}
# Runs two commands side by side; fails when either fails, after both have ended.
both() {
    local failed=0
    "$1" & local first=$!
    "$2" || failed=1
    wait $first || failed=1
    return $failed
}

[ -e "$out/tokenizer.done" ] || {
    $cdllm preprocess constituency --dataset "$(file train)" --split train --name wikitext2 --tagger english \
        --train-tokenizer 4096 --out "$out/data"
    touch "$out/tokenizer.done"
}
$cdllm preprocess constituency --dataset "$(file valid)" --split valid --name wikitext2 --tagger english \
    --tokenizer "$(folder train)" --out "$out/data"

# Stage 1 is short and cheap, and its words say little about each other: it needs more windows, and not to learn them by
# heart.
stage_1() {
    train stage1 --stage 1 "training.num_steps=$((steps + steps / 4))" training.batch_size=64 model.dropout=0.1 \
        optim.weight_decay=0.1
}
placed() { train "placed$1" --stage "$1" conditioning=placed; }
one_lane() { train flat --flat && stage_1 && placed 2; }
other_lane() { train stage3 --stage 3 && train stage2 --stage 2 && placed 3; }
both one_lane other_lane

stages=(--stage "$out/stage1" --stage "$out/stage2" --stage "$out/stage3")
placed_stages=(--stage "$out/stage1" --stage "$out/placed2" --stage "$out/placed3")
bound() {
    local name=$1
    shift
    $cdllm evaluate likelihood "$@" --data "$(folder valid)" --num-windows 512 --out "$out/$name.json"
}
prefix_bound() { bound cascade "${stages[@]}"; }
other_bounds() { bound flat --stage "$out/flat" && bound placed "${placed_stages[@]}"; }
both prefix_bound other_bounds
$cdllm sample "${stages[@]}" --num-samples 16 --output-dir "$out/samples"
$cdllm sample "${placed_stages[@]}" --num-samples 16 --output-dir "$out/samples_placed"
$cdllm sample --stage "$out/flat" --num-samples 16 --output-dir "$out/samples_flat"
