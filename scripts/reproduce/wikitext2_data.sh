# shellcheck shell=bash disable=SC2154
# What the scripts of WikiText-2 share, read by them: the data with a tokenizer of 4,096 entries, in OUT/data, and two
# commands side by side. It knows $data, $out and $cdllm.

file() { if [ -e "$data/$1.txt.xz" ]; then echo "$data/$1.txt.xz"; else echo "$data/$1.txt"; fi; }
folder() { echo "$out/data/constituency/wikitext2_$1"; }
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
