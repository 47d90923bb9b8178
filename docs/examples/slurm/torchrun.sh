#!/bin/bash
# Without SLURM: the same on each node, HEAD being the first node's name and NODES their number. Run it again to continue.
#   HEAD=node0 NODES=2 GPUS=4 CONFIG=configs/cifar100/logit_matching.yaml NAME=mine bash docs/examples/slurm/torchrun.sh
# More options are passed on. Leave torchrun's --max-restarts at 0: it would begin NAME-2 instead of continuing.
CONFIG=${CONFIG:-configs/cifar100/logit_matching.yaml}
RUNS=${RUNS:-runs}
NAME=${NAME:-torchrun}
EXPERIMENT=$(basename "$(dirname "$CONFIG")")

RESUME=()
if [ -f "$RUNS/$EXPERIMENT/$NAME/checkpoints/last.ckpt" ]; then RESUME=(--ckpt_path last); fi

torchrun --nnodes "${NODES:-1}" --nproc_per_node "${GPUS:-2}" --rdzv_backend c10d --rdzv_endpoint "${HEAD:-localhost}:29400" \
  --rdzv_id kdlab -m kdlab fit --config "$CONFIG" --config run/ddp --runs_dir "$RUNS" --name "$NAME" \
  --trainer.num_nodes "${NODES:-1}" --trainer.devices "${GPUS:-2}" "$@" "${RESUME[@]}"
