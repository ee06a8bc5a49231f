# One task of a job array: makes shard SLURM_ARRAY_TASK_ID + SHARD_OFFSET. Sourced by the .slurm files beside it, after
# they have set `entry`. Nothing here is specific to a cluster; such settings come from the environment:
#
#   SBATCH_ACCOUNT, SBATCH_PARTITION  read by sbatch itself; or its flags --account and --partition
#   NUM_SHARDS      parts of the dataset (default 32, as many as the array has tasks)
#   SHARD_OFFSET    added to the number of a task, if an array has no room for all shards (default 0)
#   OUT             where preprocessed data goes (default data/preprocessed)
#   SETUP           shell command that prepares the environment, such as "source .venv/bin/activate"
#   CONTAINER       command in front of python, such as "apptainer exec image.sif"
#   TOKENIZER       file, folder or hub id (default gpt2, unless OPTIONS train one)
#   OPTIONS         further options of cdllm preprocess, such as "--tagger english"
set -euo pipefail

dataset=${1:?usage: sbatch $entry.slurm DATASET SPLIT [options of cdllm preprocess]}
split=${2:?usage: sbatch $entry.slurm DATASET SPLIT [options of cdllm preprocess]}
shift 2
shard=$((${SLURM_ARRAY_TASK_ID:?submit this script with sbatch} + ${SHARD_OFFSET:-0}))
[ -z "${SETUP:-}" ] || eval "$SETUP"

# shellcheck disable=SC2086  # these hold several words on purpose
exec ${CONTAINER:-} python "preprocess/data_preprocess_$entry.py" \
    --dataset_name "$dataset" --dataset_mode "$split" \
    --shard_idx "$shard" --num_shards "${NUM_SHARDS:-32}" \
    --n_process "${SLURM_CPUS_PER_TASK:-1}" --out "${OUT:-data/preprocessed}" \
    ${TOKENIZER:+--tokenizer "$TOKENIZER"} ${OPTIONS:-} "$@"
