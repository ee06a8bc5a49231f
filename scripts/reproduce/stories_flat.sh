#!/usr/bin/env bash
# The story cascade and a flat model of the same network, trained with equally many token-forwards, each beside the true
# entropy of the grammar: the learning test of the whole program, since the right answer is known.
#
#   scripts/reproduce/stories_flat.sh OUT [key=value ...]
#
# A prefix counts: a window is 8 + (8 + 16) + (16 + 40) = 88 positions for the stages of 8, 16 and 40 tokens, and 40 for the
# flat model, which therefore trains for 2.2 times as many steps as each stage. Further arguments are those of
# `cdllm quickstart`. Fails if a bound is more than 10 % above the truth.
set -euo pipefail

out=${1:?usage: $0 OUT [key=value ...]}
shift
cdllm=${CDLLM:-cdllm}
python=${PYTHON:-python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

$cdllm quickstart --flat --out "$out" "$@"

$python - "$out/summary.json" <<'PYTHON'
import json
import sys

cascade = json.load(open(sys.argv[1]))
flat = cascade["flat"]
print(f"training token-forwards of each: {cascade['training_token_forwards']:,}")
print("model | bound, nats a story | standard error | truth | bound / truth | accepted")
for name, found in (("cascade", cascade), ("flat", flat)):
    numbers = [f"{found[key]:.3f}" for key in ("bound_nats_per_window", "standard_error_nats", "true_nats_of_windows")]
    print(name, *numbers, f"{found['bound_over_truth']:.3f}", f"{found['accepted_share']:.1%}", sep=" | ")
sys.exit(max(found["bound_over_truth"] for found in (cascade, flat)) > 1.1)
PYTHON
