#!/bin/bash
# Without SLURM: the same on each node, HEAD being the first node's name and NODES their number.
#   HEAD=node0 NODES=2 GPUS=4 bash docs/examples/slurm/torchrun.sh --config configs/cifar100/logit_matching.yaml
torchrun --nnodes "${NODES:-1}" --nproc_per_node "${GPUS:-2}" --rdzv_backend c10d --rdzv_endpoint "${HEAD:-localhost}:29400" \
  --rdzv_id kdlab -m kdlab fit "$@" --config run/ddp --trainer.num_nodes "${NODES:-1}" --trainer.devices "${GPUS:-2}"
