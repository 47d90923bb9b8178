"""The processes of one job are given the same config; if they are not, they end before they wait for each other."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kdlab.errors import UsageError
from kdlab.run.science import differences, science


class SameConfig(Callback):
    """Refuses to start processes that were told different things: one with fewer batches would be waited for for ever.

    Args:
        config: the resolved config of this process.
        ckpt_path: what it continues or looks at.
    """

    def __init__(self, config: Mapping[str, Any], ckpt_path: str | None) -> None:
        self.decides = science(config) | {key: config[key] for key in ("experiment", "name")}
        self.decides |= {"ckpt_path": ckpt_path, "fast_dev_run": config["trainer"]["fast_dev_run"]}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with the first process.

        Raises:
            UsageError: in all processes, if one differs.
        """
        if trainer.world_size == 1:
            return
        given: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(given, self.decides)
        for rank, other in enumerate(given):
            if changes := differences(given[0], other):
                raise UsageError(
                    f"process {rank} of {trainer.world_size} (counted from 0) was started with another config than the "
                    f"first: {'; '.join(changes)}; start all with the same command"
                )
