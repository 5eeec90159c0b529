#!/bin/bash
# GPT-3 Small on Slurm: 2 nodes of 8 GPUs. What is its own here: IMAGE_ENV is a file to source that puts torchrun and
# glassformer on the path; DATA has shards/train and shards/valid (glassformer tokenize); RUN is the run's folder. All
# nodes see DATA and RUN.
#   IMAGE_ENV=venv/bin/activate DATA=/shared/data RUN=/shared/runs/gpt3-small sbatch launch/slurm.sh
# A job that is requeued, or started again, goes on with its run; another number of nodes may do so, too.
#SBATCH --job-name=gpt3-small
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

: "${DATA:?set DATA to the folder with shards/train and shards/valid}" "${RUN:?set RUN to the folder of the run}"
export DATA RUN
if [[ -n "${IMAGE_ENV:-}" ]]; then source "$IMAGE_ENV"; fi
export NODES="$SLURM_JOB_NUM_NODES" GPUS_PER_NODE="${SLURM_GPUS_ON_NODE:-8}"
export PROCESSES=$((NODES * GPUS_PER_NODE))
export HEAD MASTER_PORT="${MASTER_PORT:-29500}"
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

srun --kill-on-bad-exit=1 bash -c '
torchrun --nnodes "$NODES" --nproc-per-node "$GPUS_PER_NODE" --rdzv-backend c10d --rdzv-id gpt3-small \
    --rdzv-endpoint "$HEAD:$MASTER_PORT" --max-restarts 0 \
    -m glassformer train recipes/gpt3-small.toml --data-root "$DATA" --run-folder "$RUN" \
    --parallel.data "$PROCESSES" --if-exists resume
'
