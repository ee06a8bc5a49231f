#!/usr/bin/env bash
# WikiText-2 on a CPU, four arms of equal size at equal training token-forwards: a flat model, and three-stage cascades
# 32 -> 64 -> 128 whose later stages have a prefix, a prefix and a copy head, or places. The cascades of a seed share
# their first stage. Then come the joint bounds by terms, samples of each, and tables of both and of the course of the
# bounds.
#
#   scripts/reproduce/wikitext2.sh DATA OUT
#
# DATA holds train.txt.xz and valid.txt.xz of WikiText-2 (or train.txt and valid.txt); OUT is the folder of the results.
# STEPS is the number of steps of a stage, a multiple of 16, SEEDS the seeds (defaults below). If interrupted, the same
# command continues. The output of a run goes to OUT/seed<seed>/<run>.log. Two models train side by side, one core each,
# which is faster than one after the other with two threads.
set -euo pipefail

data=${1:?usage: $0 DATA OUT}
out=${2:?usage: $0 DATA OUT}
steps=${STEPS:-400}
seeds=${SEEDS:-0 1}
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
# The table of the course has the bound at every eighth of the steps, also for the flat model with its 5 / 2 STEPS.
if ((steps < 16 || steps % 16)); then
    echo "STEPS is $steps; it must be a multiple of 16, so that every eighth of a training is a whole step" >&2
    exit 2
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# shellcheck source=scripts/reproduce/wikitext2_runs.sh
source "$(dirname "$0")/wikitext2_runs.sh"
# shellcheck source=scripts/reproduce/arms.sh
source "$(dirname "$0")/arms.sh"
valid=$(folder valid)

# NAME STEPS SETTING...
train_here() {
    local name=$1 num_steps=$2
    shift 2
    train "$run/$name" "$num_steps" training.ema=0.99 "training.eval_every=$((num_steps / 8))" \
        training.eval_windows=128 training.eval_times=4 "training.snapshot_every=$((num_steps / 2))" sampling.num_samples=2 "training.seed=$seed" "$@"
}

# Positions a window: flat 128; stage 1 32; with a prefix 32 + 64 and 64 + 128; placed 64 and 128, and the layouts' 33
# and 65. So a cascade takes 320 or 322 for a window of every stage, and the flat model gets 5 / 2 of the steps of a
# stage.
flat() { train_here flat "$((steps * 5 / 2))" --flat; }
stage_1() { train_here stage1 "$steps" --stage 1; }
prefix() { train_here "prefix$1" "$steps" --stage "$1" model.copy_head=false; }
copy() { train_here "copy$1" "$steps" --stage "$1" model.copy_head=true; }
placed() { train_here "placed$1" "$steps" --stage "$1" conditioning=placed; }
one_lane() { flat && copy 3 && placed 2; }
other_lane() { stage_1 && placed 3 && prefix 3 && copy 2 && prefix 2; }

prefix_figures() { figures prefix flat; }
other_figures() { figures copy placed; }

for seed in $seeds; do
    run=$out/seed$seed
    mkdir -p "$run"
    together one_lane other_lane
    together prefix_figures other_figures
done
$python "$(dirname "$0")/arms_table.py" "$out"
