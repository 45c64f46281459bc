#!/usr/bin/env bash
# Trains on several nodes under Slurm, goes on from the last checkpoint, and asks for more time
# before the limit. From the checkout, with its .venv made:
#
#     sbatch docs/slurm.sh config/32b.py
#     sbatch --nodes 8 docs/slurm.sh config/32b.py --train.steps 20000 --tensorboard
#
# What happens when is in docs/SCALE.md. Another script than train.py: SCRIPT=rl.py sbatch ...

#SBATCH --job-name=sage
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=2
# one torchrun per node, which starts one process per GPU
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
# Ten minutes before the limit this script alone gets SIGTERM. A step must end and a checkpoint be
# written in that time. (Slurm may send it up to a minute early.)
#SBATCH --signal=B:TERM@600
#SBATCH --requeue

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch}"
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}" # torchrun gives each process one otherwise
script="${SCRIPT:-train.py}"

# -- a run that has a checkpoint goes on from it
folder=$(python -c 'from support import settings
settings.run_script(lambda: print(settings.from_command_line().out))' "$@")
if compgen -G "$folder/checkpoint-*" > /dev/null || [[ ${script##*/} != train.py ]]; then
  set -- "$@" --resume
fi

# -- the nodes meet at the first one, at a port that no other job of ours has
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

# A process that dies is restarted with all others, three times at most. When a torchrun gives up,
# srun ends those of the other nodes. torchrun's own 30 s are too short to save a large model.
srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend c10d --rdzv-endpoint "$first_node:$port" \
  --rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
  --max-restarts 3 --shutdown-timeout 540 \
  "$script" "$@" &
step=$!

# -- near the limit: srun hands SIGTERM on, all ranks save and end, the job goes back to the queue
stopped=no
trap 'stopped=yes; kill -TERM "$step"' TERM
status=0
wait "$step" || status=$? # returns when the signal comes, too
if [[ $stopped == yes ]]; then
  wait "$step" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
