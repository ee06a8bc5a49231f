# shellcheck shell=bash disable=SC2154
# What the scripts of several arms share, read by them: commands side by side, and the figures of an arm. It knows $cdllm,
# $run (where the models of a seed are: flat, stage1, <arm>2, <arm>3), $valid (the data for bounds) and $seed.

# Runs commands side by side; fails when one fails, after all have ended. A stop reaches each with all that it runs, which
# keeps its step, and nothing more begins.
together() {
    local failed=0 job jobs=() command
    set -m # a group of processes each
    for command in "$@"; do
        "$command" &
        jobs+=($!)
    done
    set +m
    trap 'trap "" INT TERM; kill -TERM -- "${jobs[@]/#/-}"; wait; exit 143' INT TERM
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    trap - INT TERM
    return $failed
}
# What an arm is made of, as options of a command.
arm() {
    if [ "$1" = flat ]; then echo --stage "$run/flat"; else echo --stage "$run/stage1" --stage "$run/${1}2" --stage "$run/${1}3"; fi
}
# Samples and the joint bound of arms, to $run/<arm>.json; those that are there are not made again.
figures() {
    local name
    for name in "$@"; do
        [ ! -e "$run/$name.json" ] || continue
        # shellcheck disable=SC2046
        $cdllm sample $(arm "$name") --num-samples 16 --seed "$seed" --output-dir "$run/samples_$name" &&
            $cdllm evaluate likelihood $(arm "$name") --data "$valid" --num-windows 256 --out "$run/$name.json" || return 1
    done
}
