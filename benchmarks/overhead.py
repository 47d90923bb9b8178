"""What a step costs beside the step: an epoch of ``kdlab fit`` against a bare PyTorch loop over the same batches.

    python benchmarks/overhead.py --data_dir DIR    # the MNIST and CIFAR-100 in DIR; about four minutes on two cores
    python benchmarks/overhead.py --data_dir DIR --device cuda --turns 5      # writes overhead_cuda.json

Two small networks on labels alone: ResNet20 on CIFAR-100, batch 64, and the 20,490-parameter student on MNIST, batch
256, whose step is shorter by ten. After the steps of each epoch of ``fit``, with all that `fit` does in a step by
default (logging, seeds, checks, the account of what training costs), a copy of its student is trained for one epoch in
a bare loop: loader, augmentation, normalisation, forward, cross-entropy, backward, optimizer. In every second turn the
bare loop comes first. What comes between epochs (validation, checkpoints) is in neither. Both take turns, so that a
busy machine slows them alike; a ratio is of the same turn. The first turn does not count. The CIFAR-100 epoch has 3,200
images, on a GPU all 50,000; both sides compute in float32.
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
from measuring import CPU, Device

from kdlab.cli import main as kdlab

CODE = (
    "kdlab/methods",
    "kdlab/run",
    "kdlab/data",
    "kdlab/allocation.py",
    "kdlab/config_cli.py",
    "kdlab/training_cli.py",
)

CASES = {
    "ResNet20, CIFAR-100, batch 64": [
        "--config", "cifar100/independent", "--model.student", "kdlab.models.ResNet20",
        "--data.train_per_class", "32", "--trainer.limit_test_batches", "1",
    ],
    "MNISTNarrowConv, MNIST, batch 256": ["--config", "mnist/independent"],
}  # fmt: skip


class BareLoop(Callback):
    """Train a copy of the student in a bare loop around each epoch, and time both."""

    turns: ClassVar[list[dict[str, float]]] = []
    device: ClassVar[Device] = CPU

    def on_train_epoch_start(self, trainer, module):
        """Run the bare loop first in odd turns; then start the clock of the epoch."""
        if trainer.current_epoch % 2:
            self.bare = bare_seconds(trainer, module, self.device)
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Stop it behind the last step: validation and checkpoints are no steps."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.device.synchronize()
        self.ended = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        """Run the bare loop last in even turns; then write both down."""
        if trainer.current_epoch % 2 == 0:
            self.bare = bare_seconds(trainer, module, self.device)
        fit, images = self.ended - self.began, len(trainer.datamodule.train_split)
        self.turns.append(
            {"fit_images_per_s": images / fit, "bare_images_per_s": images / self.bare, "ratio": fit / self.bare}
        )


def bare_seconds(trainer, module, device: Device) -> float:
    """Train a copy of the student for an epoch in a bare loop."""
    data, loader = trainer.datamodule, copy.copy(trainer.train_dataloader)
    student = copy.deepcopy(module.student)
    optimizer = module.optimizer_factory(student.parameters())
    optimizer.load_state_dict(trainer.optimizers[0].state_dict())  # its state is there already, as in `fit`
    device.synchronize()
    began = time.perf_counter()
    for batch in loader:
        batch = data.training_view(batch)
        loss = F.cross_entropy(student(batch.image), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    device.synchronize()
    return time.perf_counter() - began


def measure(arguments: list[str], turns: int) -> dict:
    """Run `fit` with these arguments and return what its turns say."""
    BareLoop.turns.clear()
    with tempfile.TemporaryDirectory() as folder:
        code = kdlab(
            ["fit", *arguments, "--runs_dir", folder, "--trainer.max_epochs", str(turns + 1),
             "--trainer.callbacks+=overhead.BareLoop"]
        )  # fmt: skip
    if code:
        sys.exit(code)
    counted = list(BareLoop.turns[1:])
    return {name: measuring.spread([turn[name] for turn in counted]) for name in counted[0]} | {"turns": counted}


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    parser.add_argument("--data_dir", default="data", help="folder that holds MNIST and CIFAR-100")
    parser.add_argument("--turns", type=int, default=10)
    args = parser.parse_args()
    turns = 1 if args.quick else args.turns
    BareLoop.device = device = args.device
    where = device.pick([], [*measuring.ONE_GPU, "--data.train_per_class", "null"])
    report = {"environment": measuring.environment(sys.argv, CODE), "n": turns}
    sys.modules["overhead"] = sys.modules["__main__"]
    sys.argv = ["kdlab"]
    for name, arguments in CASES.items():
        report[name] = measure([*arguments, *where, "--data.data_dir", args.data_dir], turns)
        measuring.show(name, {key: value for key, value in report[name].items() if key != "turns"})
    if not args.quick:
        measuring.write(report, device.file("overhead"))


if __name__ == "__main__":
    main()
