#!/usr/bin/env bash
#SBATCH --job-name=beft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# The fit saves, requeues the job and ends when this signal comes, 120 seconds before the time is up.
#SBATCH --signal=SIGUSR1@120
#
#   OUT=runs/copa sbatch examples/slurm_two_nodes.sh --config configs/opt6.7b_copa.yaml --config configs/strategy/fsdp2.yaml
#
# Fill the caches on a login node first (python -m beft_lightning download --config ...). Whatever ends the job, a
# preemption or a lost node, the next start goes on from the newest checkpoint below OUT.
set -euo pipefail

OUT=${OUT:-runs/$SLURM_JOB_NAME}
export HF_HUB_OFFLINE=1

exec srun --kill-on-bad-exit=1 python -m beft_lightning fit "$@" \
    --trainer.default_root_dir "$OUT" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --ckpt_path last-if-any
