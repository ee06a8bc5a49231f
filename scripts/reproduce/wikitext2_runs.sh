# shellcheck shell=bash disable=SC2154
# Sourced by the scripts for WikiText-2: the data in OUT/data, with a tokenizer of 4,096 entries, and a training. It
# uses $data, $out and $cdllm.

file() { if [ -e "$data/$1.txt.xz" ]; then echo "$data/$1.txt.xz"; else echo "$data/$1.txt"; fi; }
folder() { echo "$out/data/constituency/wikitext2_$1"; }
# train FOLDER STEPS SETTING...: the output goes to FOLDER.log. A run that has reached its last step ends at once.
train() {
    local folder=$1 num_steps=$2
    shift 2
    echo "$folder: training, see $folder.log"
    $cdllm train --data "$(folder train)" --valid "$(folder valid)" --lengths 32,64,128 --model tiny --out "$folder" \
        "training.num_steps=$num_steps" training.batch_size=32 training.t_min=0.01 training.log_every=50 \
        model.parameterization=normalized model.time_conditioning=false model.prefix_attention=one_way \
        optim.lr=2e-3 optim.beta2=0.98 optim.warmup=100 optim.decay=cosine \
        sampling.predictor=first_hitting "$@" >"$folder.log" 2>&1 ||
        { echo "$folder: failed" >&2; tail -n 5 "$folder.log" >&2; return 1; }
}

[ -e "$out/tokenizer.done" ] || {
    $cdllm preprocess constituency --dataset "$(file train)" --split train --name wikitext2 --tagger english \
        --train-tokenizer 4096 --out "$out/data"
    touch "$out/tokenizer.done"
}
$cdllm preprocess constituency --dataset "$(file valid)" --split valid --name wikitext2 --tagger english \
    --tokenizer "$(folder train)" --out "$out/data"
