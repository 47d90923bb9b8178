"""What a step costs beside the step: an epoch of ``kdlab fit`` against a bare PyTorch loop over the same batches.

    python benchmarks/overhead.py --data_dir DIR       # the MNIST in DIR; about a minute on two cores

The 20,490-parameter MNIST student, batch 256, labels only. After each training epoch of ``fit``, with all that `fit`
does by default (logging, checkpoints, seeds, checks), a copy of its student is trained for one epoch in a bare loop:
loader, normalisation, forward, cross-entropy, backward, optimizer. Both take turns, so that a busy machine slows them
alike; a ratio is of the same turn. The first turn does not count.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from typing import ClassVar

import measuring
import torch.nn.functional as F
from lightning.pytorch import Callback

from kdlab.cli import main as kdlab

CODE = ("kdlab/methods", "kdlab/run", "kdlab/data", "kdlab/allocation.py", "kdlab/training_cli.py")


class BareLoop(Callback):
    """Train a copy of the student in a bare loop after each epoch, and time both."""

    turns: ClassVar[list[dict[str, float]]] = []

    def on_train_epoch_start(self, trainer, module):
        """Start the clock of the epoch."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Stop it behind the last step: validation and checkpoints are no steps."""
        self.ended = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        """Do the same in a bare loop."""
        data, loader = trainer.datamodule, copy.copy(trainer.train_dataloader)
        student = copy.deepcopy(module.student)
        optimizer = module.optimizer_factory(student.parameters())
        began = time.perf_counter()
        for batch in loader:
            batch = data.training_view(batch)
            loss = F.cross_entropy(student(batch.image), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bare = time.perf_counter() - began
        fit, images = self.ended - self.began, len(data.train_split)
        self.turns.append({"fit_images_per_s": images / fit, "bare_images_per_s": images / bare, "ratio": fit / bare})


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.options(__doc__)
    parser.add_argument("--data_dir", default="data", help="folder that holds MNIST")
    parser.add_argument("--turns", type=int, default=10)
    args = parser.parse_args()
    wanted = 1 if args.quick else args.turns
    about = measuring.environment(sys.argv, CODE)
    sys.modules["overhead"] = sys.modules["__main__"]
    sys.argv = ["kdlab"]
    with tempfile.TemporaryDirectory() as folder:
        code = kdlab(
            ["fit", "--config", "mnist/independent", "--data.data_dir", args.data_dir, "--runs_dir", folder,
             "--trainer.max_epochs", str(wanted + 1), "--profile", "false",
             "--trainer.callbacks+=overhead.BareLoop"]
        )  # fmt: skip
    if code:
        sys.exit(code)
    turns = BareLoop.turns[1:]
    report = {"environment": about, "n": len(turns), "batch_size": 256, "student": "MNISTNarrowConv"}
    report |= {name: measuring.spread([turn[name] for turn in turns]) for name in turns[0]}
    report["turns"] = turns
    measuring.show("fit against a bare loop", {name: report[name] for name in turns[0]})
    if not args.quick:
        measuring.write(report, "overhead.json")


if __name__ == "__main__":
    main()
