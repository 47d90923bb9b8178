"""What it costs to get memory from the kernel anew in each step: training with and without `keep_freed_memory`.

    python benchmarks/allocation.py             # about a minute

The 20,490-parameter MNIST student on one batch of 256 random images in a bare loop, in two processes that take turns:
one with glibc as it is, one in which it keeps freed memory, as the command line does. Page faults are those of a step.
"""

from __future__ import annotations

import sys

import torch
from measuring import Partner, environment, options, over, ratios, show, spread, write

CODE = ("kdlab/allocation.py", "kdlab/models", "benchmarks/training_steps.py")
VARIANTS = {"glibc as it is": False, "freed memory kept": True}


def main() -> None:
    """Measure, print and write the result."""
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100, help="per turn")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    turns, steps = (1, 5) if args.quick else (args.turns, args.steps)
    torch.set_num_threads(args.threads)
    about = environment(sys.argv, CODE)
    partners = {
        name: Partner("training_steps.py", {"keep": keep, "steps": steps}, args.threads)
        for name, keep in VARIANTS.items()
    }
    for partner in partners.values():
        partner.turn()  # warms up
    answers = [{name: partner.turn() for name, partner in partners.items()} for _ in range(turns)]
    for partner in partners.values():
        partner.__exit__()
    rates = [{name: answer["images_per_s"] for name, answer in turn.items()} for turn in answers]
    report = {
        "environment": about,
        "n": turns,
        "steps": steps,
        "images_per_s": {name: spread([turn[name] for turn in rates]) for name in VARIANTS},
        "page_faults_per_step": {
            name: spread([turn[name]["page_faults_per_step"] for turn in answers]) for name in VARIANTS
        },
        "ratios": ratios(rates, over(("freed memory kept", "glibc as it is"))),
        "turns": answers,
    }
    for title in ("images_per_s", "page_faults_per_step", "ratios"):
        show(title, report[title])
    if not args.quick:
        write(report, "allocation.json")


if __name__ == "__main__":
    main()
