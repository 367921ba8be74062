#!/bin/bash
# Stands in for sbatch in tests: runs the tasks of an array one after the other, here and now.
#
# As `sbatch`, on PATH. Options are checked against those that drivers/slurm.sh may use.
set -euo pipefail
array=0-0 name=
while [[ ${1:-} == --* ]]; do
    case $1 in
        --array=*) array=${1#*=} ;;
        --job-name=*) name=${1#*=} ;;
        --dependency=afterok:7) ;;
        --parsable | --requeue | --cpus-per-task=*) ;;
        *) echo "sbatch: unrecognized option '$1'" >&2; exit 1 ;;
    esac
    shift
done
if [[ $name == compress-units ]]; then
    first=${array%-*} last=${array#*-}
    for ((task = first; task <= last; task++)); do
        SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((last - first + 1)) \
            bash "$@" >&2
    done
    echo 7
else
    SLURM_JOB_ID=8 bash "$@"
fi
