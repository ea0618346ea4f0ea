#!/usr/bin/env bash
# One or more nodes without a scheduler: run this on each node, with the same arguments.
#
#   examples/torchrun.sh --config configs/opt6.7b_copa.yaml --config configs/strategy/fsdp2.yaml
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=node0 examples/torchrun.sh ...    # and NODE_RANK=1 on the other node
#
# Variables: NPROC (processes on this node, one for each device), NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, and
# COMMAND (fit, validate, test, predict or score).
set -euo pipefail

NNODES=${NNODES:-1}
NPROC=${NPROC:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}

exec python -m torch.distributed.run \
    --nnodes "$NNODES" --nproc-per-node "$NPROC" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
    -m beft_lightning "${COMMAND:-fit}" "$@" --trainer.num_nodes "$NNODES" --trainer.devices "$NPROC"
