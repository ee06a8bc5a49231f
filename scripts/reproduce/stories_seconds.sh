#!/usr/bin/env bash
# Prefix cascade with and without copy heads, placed cascade and flat model on the stories at equal seconds of training:
# the bound, and the share of sampled stories that the grammar accepts.
#
#   scripts/reproduce/stories_seconds.sh OUT
#
# Steps of all kinds are timed in turns. Then each kind trains for as many steps as fit into the seconds that the prefix
# cascade with copy heads takes for STEPS (default 2000) of each stage. SEED is the seed (default 0). Seconds are
# wall-clock time of training steps alone, so nothing else should run beside it. If interrupted, the same command
# continues.
set -euo pipefail

out=${1:?usage: $0 OUT}
seed=${SEED:-0}
steps=${STEPS:-2000}
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
data=$out/data/constituency
rounds=2 timed_steps=${TIMED_STEPS:-150}

mkdir -p "$out"
$python - "$out/tokenizer" <<'PYTHON'
import sys
from pathlib import Path

from cascaded_dllm.text.stories import story_tokenizer

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
story_tokenizer().save(folder)
PYTHON
for split in train valid; do
    [ -e "$data/stories_$split/dataset.json" ] || $cdllm preprocess constituency --dataset stories --tagger stories \
        --split $split --tokenizer "$out/tokenizer" --out "$out/data" >/dev/null
done

settings=$($python "$(dirname "$0")/quickstart_settings.py")
mapfile -t quickstart <<<"$settings"

# quickstart.yaml, for `cdllm train`: KIND STAGE STEPS FOLDER
train() {
    local kind=$1 stage=$2 number=$3 folder=$4 how=()
    case $kind in
        copy) how=(model.copy_head=true) ;;
        placed) how=(conditioning=placed) ;;
        flat) how=(baseline=true) ;;
    esac
    $cdllm train --data "$data/stories_train" --valid "$data/stories_valid" --stage "$stage" --out "$folder" \
        "${quickstart[@]}" "training.num_steps=$number" training.log_every=10 "training.eval_every=$number" \
        "training.snapshot_every=$number" sampling.num_samples=0 "training.seed=$seed" "${how[@]}" \
        >>"$out/train.log" 2>&1
}
stages_of() { if [ "$1" = flat ]; then echo 3; else echo 1 2 3; fi; }

# Seconds of all steps in the metrics of some runs.
seconds_of() {
    $python - "$@" <<'PYTHON'
import json
import sys

total = 0.0
for folder in sys.argv[1:]:
    lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    steps, before = [line for line in lines if "tokens_per_second" in line], 0
    for line in steps:
        total += (line["step"] - before) * line["tokens"] / line["tokens_per_second"]
        before = line["step"]
print(total)
PYTHON
}

for ((round = 1; round <= rounds; round++)); do
    for kind in copy prefix placed flat; do
        for stage in $(stages_of $kind); do
            train $kind "$stage" $timed_steps "$out/timed/$kind/round$round/stage$stage"
        done
    done
done
declare -A seconds
for kind in copy prefix placed flat; do seconds[$kind]=$(seconds_of "$out/timed/$kind"/round*/stage*); done

for kind in copy prefix placed flat; do
    number=$($python -c "print(round($steps * ${seconds[copy]} / ${seconds[$kind]}))")
    named=()
    for stage in $(stages_of $kind); do
        train $kind "$stage" "$number" "$out/$kind/stage$stage"
        named+=(--stage "$out/$kind/stage$stage")
    done
    [ -e "$out/$kind.json" ] || $cdllm evaluate likelihood "${named[@]}" --device cpu --data "$data/stories_valid" \
        --out "$out/$kind.json" >/dev/null
    [ -d "$out/samples_$kind" ] || $cdllm sample "${named[@]}" --device cpu --num-samples 512 --batch-size 128 \
        --seed "$seed" --output-dir "$out/samples_$kind" >/dev/null
    echo "$number" >"$out/$kind.steps"
    seconds_of "$out/$kind"/stage* >"$out/$kind.seconds"
done

$python - "$out" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

from cascaded_dllm import StoryGrammar

out, grammar = Path(sys.argv[1]), StoryGrammar()
print("kind | steps of each stage | seconds of training | bound, nats a story | +- | accepted of 512")
for kind in ("copy", "prefix", "placed", "flat"):
    [lines] = (out / f"samples_{kind}").glob("*/samples.jsonl")
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    texts = [re.sub(r"(<\|endoftext\|>)+$", "", record["stages"][-1]["text"]) for record in records]
    found = json.loads((out / f"{kind}.json").read_text())
    steps, seconds = ((out / f"{kind}.{what}").read_text().strip() for what in ("steps", "seconds"))
    bound = f"{found['bound_nats_per_window']:.3f} | {found['standard_error_nats']:.3f}"
    print(kind, steps, f"{float(seconds):.0f}", bound, f"{sum(map(grammar.accepts, texts)) / len(texts):.1%}", sep=" | ")
PYTHON
