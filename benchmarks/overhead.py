"""What a step costs beside the step: an epoch of ``kdlab fit`` against a bare PyTorch loop over the same batches.

    python benchmarks/overhead.py --data_dir DIR       # the MNIST in DIR; about a minute on two cores

The 20,490-parameter MNIST student, batch 256, labels only. After each training epoch of ``fit``, with all that `fit`
does by default (logging, checkpoints, seeds, checks), a copy of its student is trained for one epoch in a bare loop:
loader, normalisation, forward, cross-entropy, backward, optimizer. Both take turns, so that a busy machine slows them
alike; a ratio is of the same turn. The first turn does not count.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from kdlab.cli import main as kdlab

RESULT = Path(__file__).parent / "results" / "overhead.json"
CODE = ("kdlab/methods", "kdlab/run", "kdlab/data", "kdlab/allocation.py", "kdlab/training_cli.py", __file__)


class BareLoop(Callback):
    """Train a copy of the student in a bare loop after each epoch, and time both."""

    turns: list[dict[str, float]] = []

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


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def environment() -> dict[str, object]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    commit, changes = (
        subprocess.run(["git", *command], capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout.strip()
        for command in (["rev-parse", "HEAD"], ["status", "--porcelain", *CODE])
    )
    return {
        "cpu": next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": os.getloadavg(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": commit or None,
        "uncommitted_changes": changes.splitlines(),
        "command": " ".join(["python", "benchmarks/overhead.py", *sys.argv[1:]]),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data", help="folder that holds MNIST")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    about = environment()
    sys.modules["overhead"] = sys.modules["__main__"]
    sys.argv = ["kdlab"]
    with tempfile.TemporaryDirectory() as folder:
        code = kdlab(
            ["fit", "--config", "mnist/independent", "--data.data_dir", args.data_dir, "--runs_dir", folder,
             "--trainer.max_epochs", str(args.turns + 1), "--profile", "false",
             "--trainer.callbacks+=overhead.BareLoop"]
        )  # fmt: skip
    if code:
        sys.exit(code)
    turns = BareLoop.turns[1:]
    report = {"environment": about, "n": len(turns), "batch_size": 256, "student": "MNISTNarrowConv"}
    report |= {name: spread([turn[name] for turn in turns]) for name in turns[0]}
    report["turns"] = turns
    for name in turns[0]:
        print(f"{name:>20}: " + ", ".join(f"{key} {value:,.3f}" for key, value in report[name].items()))
    if not args.dry:
        RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
