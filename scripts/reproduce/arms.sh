# shellcheck shell=bash disable=SC2154
# Sourced by the scripts that compare arms: commands side by side, and the figures of an arm. It uses $cdllm, $run (the
# folder of the models of a seed: flat, stage1, <arm>2, <arm>3), $valid (the data for bounds) and $seed.

# Runs commands side by side; fails if one fails, after all have ended. INT and TERM end each with all processes that it
# started, which keep their step, and nothing more begins.
together() {
    local failed=0 job jobs=() command
    set -m # a process group each
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
# The stages of an arm, as options of a command.
arm() {
    if [ "$1" = flat ]; then echo --stage "$run/flat"; else echo --stage "$run/stage1" --stage "$run/${1}2" --stage "$run/${1}3"; fi
}
# Samples of arms, and their joint bounds in $run/<arm>.json; arms that have this file are skipped.
figures() {
    local name
    for name in "$@"; do
        [ ! -e "$run/$name.json" ] || continue
        # shellcheck disable=SC2046
        $cdllm sample $(arm "$name") --num-samples 16 --seed "$seed" --output-dir "$run/samples_$name" &&
            $cdllm evaluate likelihood $(arm "$name") --data "$valid" --num-windows 256 --out "$run/$name.json" || return 1
    done
}
