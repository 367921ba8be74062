#!/bin/bash
# Compresses a checkpoint with Slurm: an array of units, then a merge when all are done.
#
#     compress-model plan MODEL --preset server --units 200 -o units.json
#     drivers/slurm.sh units.json PIECES OUT [sbatch options]
#
# The checkpoint, units.json and PIECES must be on storage that all nodes share. A task that is lost
# with its node is queued again; one that runs twice gives the same piece. Where the cluster allows
# fewer tasks in an array than there are units, each task does every so-manieth unit.
set -euo pipefail

if [[ ${COMPRESS_STEP:-} == work ]]; then
    for ((unit = SLURM_ARRAY_TASK_ID; unit < COMPRESS_UNITS; unit += SLURM_ARRAY_TASK_COUNT)); do
        compress-model work "$1" --unit "$unit" -o "$2" -t "${SLURM_CPUS_PER_TASK:-1}"
    done
    exit
fi
if [[ ${COMPRESS_STEP:-} == merge ]]; then
    exec compress-model merge "$1" "$2" -o "$3"
fi

units=$1 pieces=$2 output=$3
shift 3
count=$(python3 -c '
import json, sys
print(len(json.load(open(sys.argv[1]))["units"]))' "$units")
tasks=${TASKS:-$((count < 1000 ? count : 1000))}
export COMPRESS_UNITS=$count
array=$(COMPRESS_STEP=work sbatch --parsable --job-name=compress-units --array="0-$((tasks - 1))" --requeue \
    --cpus-per-task=4 "$@" "$0" "$units" "$pieces" "$output")
COMPRESS_STEP=merge sbatch --job-name=compress-merge --dependency="afterok:${array%%;*}" "$@" \
    "$0" "$units" "$pieces" "$output"
