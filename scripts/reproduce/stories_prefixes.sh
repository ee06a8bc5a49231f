#!/usr/bin/env bash
# What training the later stages of the story cascade on imperfect prefixes is worth: the share of sampled stories that
# the grammar accepts, and the joint bound on true prefixes, for each way and each seed.
#
#   scripts/reproduce/stories_prefixes.sh OUT
#
# SEEDS are the seeds (default "0 1 2"), STEPS the steps of each stage (default 1000). Stage 1, and stages 2 and 3 on
# true prefixes, are those of `cdllm quickstart`; every other way trains stages 2 and 3 anew. If interrupted, the same
# command continues.
set -euo pipefail

out=${1:?usage: $0 OUT}
seeds=${SEEDS:-0 1 2}
steps=${STEPS:-1000}
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# quickstart.yaml, for `cdllm train`.
settings=$($python "$(dirname "$0")/quickstart_settings.py")
mapfile -t common <<<"$settings"
common+=("training.num_steps=$steps" training.log_every=100 "training.eval_every=$steps"
    "training.snapshot_every=$steps" model.copy_head=false)

# Stages 2 and 3 of one way; "@" in a setting stands for the folders of the stages before.
train_way() {
    local folder=$1 way=$2 data=$1/data/constituency before=$1/stage1
    shift 2
    for stage in 2 3; do
        $cdllm train --data "$data/stories_train" --valid "$data/stories_valid" --stage $stage \
            --out "$folder/$way/stage$stage" "${common[@]}" "training.seed=$seed" "${@//@/$before}" \
            >>"$folder/$way-stage$stage.log" 2>&1
        before="$before,$folder/$way/stage2"
    done
}
measure() {
    local folder=$1 way=$2 name=$3 stages
    shift 3
    stages=(--stage "$folder/stage1" --stage "$folder/$way/stage2" --stage "$folder/$way/stage3")
    [ -e "$folder/$name.json" ] || $cdllm evaluate likelihood "${stages[@]}" --device cpu \
        --data "$folder/data/constituency/stories_valid" --out "$folder/$name.json" >/dev/null
    [ -d "$folder/samples_$name" ] || $cdllm sample "${stages[@]}" --device cpu --num-samples 512 --batch-size 128 \
        --output-dir "$folder/samples_$name" "$@" >/dev/null
}

for seed in $seeds; do
    folder=$out/seed$seed
    mkdir -p "$folder"
    $cdllm quickstart --out "$folder" --seed "$seed" --num-samples 8 "training.num_steps=$steps" \
        model.copy_head=false >"$folder/quick.log" 2>&1
    mkdir -p "$folder/true"
    for stage in 2 3; do ln -sfn "../stage$stage" "$folder/true/stage$stage"; done
    train_way "$folder" random training.prefix_noise.prob=0.1
    train_way "$folder" mask training.prefix_noise.prob=0.1 training.prefix_noise.kind=mask
    train_way "$folder" dropout training.prefix_dropout=0.1
    train_way "$folder" generated training.generated_prefix.prob=0.5 'training.generated_prefix.stage_paths=[@]'
    train_way "$folder" slightly training.generated_prefix.prob=0.5 training.generated_prefix.level=0.1 \
        'training.generated_prefix.stage_paths=[@]'
    for way in true random mask dropout generated slightly; do measure "$folder" $way $way; done
    measure "$folder" dropout guidance1 --guidance 1
    measure "$folder" random noised --prefix-noise 0.1
done

$python - "$out" $seeds <<'PYTHON'
import json
import re
import sys
from pathlib import Path

from cascaded_dllm import StoryGrammar

grammar, (out, *seeds) = StoryGrammar(), sys.argv[1:]
print("way", *(f"accepted, bound (nats) of seed {seed}" for seed in seeds), sep=" | ")
for name in ("true", "random", "noised", "mask", "dropout", "guidance1", "generated", "slightly"):
    row = []
    for seed in seeds:
        folder = Path(out) / f"seed{seed}"
        [lines] = folder.glob(f"samples_{name}/*/samples.jsonl")
        records = [json.loads(line) for line in lines.read_text().splitlines()]
        texts = [re.sub(r"(<\|endoftext\|>)+$", "", record["stages"][-1]["text"]) for record in records]
        accepted = sum(map(grammar.accepts, texts)) / len(texts)
        bound = json.loads((folder / f"{name}.json").read_text())["bound_nats_per_window"]
        row.append(f"{accepted:.1%}, {bound:.3f}")
    print(name, *row, sep=" | ")
PYTHON
