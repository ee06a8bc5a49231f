#!/usr/bin/env bash
# The cascade `stories` that comes with the package: that of the quickstart, trained five times as long, as a bundle
# whose card says what it does.
#
#   scripts/reproduce/stories_cascade.sh OUT
#
# OUT is the folder of the runs; the bundle is OUT/stories, which must not exist yet. It took 28 minutes on one core of
# a shared AMD EPYC. Another kind of processor, or another number of threads, adds in another order, so that weights
# differ in their last digits, and texts with them.
set -euo pipefail

out=${1:?usage: $0 OUT}
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

$cdllm quickstart training.num_steps=6000 training.eval_every=2000 training.snapshot_every=2000 --num-samples 1024 \
    --out "$out"
$cdllm bundle --license mit --out "$out/stories" --stage "$out/stage1" --stage "$out/stage2" --stage "$out/stage3"

$python - "$out/summary.json" "$out/stories/README.md" <<'PYTHON'
import json
import sys
from pathlib import Path

found, card = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
mean, error = found["bound_nats_per_window"], found["standard_error_nats"]
head, stages = card.read_text().replace("./stories", "stories").split("## Stages", 1)
card.write_text(
    f"""{head}## What it does

It writes stories of a grammar of 8 templates whose law is known (`cascaded_dllm.StoryGrammar`), and knows the words of that grammar
alone. The grammar is what it was trained on, so that no text of anybody is in it. `scripts/reproduce/stories_cascade.sh` trains it.

* {100 * found["accepted_share"]:.1f} % of {found["num_samples"]:,} texts belong to the grammar; {found["distinct_texts"]:,} of them are distinct.
* Joint bound on 512 unseen stories: {mean:.2f} +- {error:.2f} nats a story, of which at most {found["omitted_nats_per_window_at_most"]:.2f} are left out; their
  true surprisal is {found["true_nats_of_windows"]:.2f}.

## Stages{stages}"""
)
PYTHON
