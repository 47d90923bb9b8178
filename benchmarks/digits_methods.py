"""The main job over several seeds: the distilled student against the independent one, on equal seeds.

    python benchmarks/digits_methods.py [--seeds 10] [--out benchmarks/results/digits_methods.json]
    python benchmarks/digits_methods.py --quick    # two seeds; nothing is written

Trains the teacher once, then both students with each seed, through the command line's own `main`, and writes every
test accuracy, mean, standard deviation, 95% Student-t interval, and the paired difference with its interval.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import measuring
from scipy import stats

from kdlab.atomic import write_text
from kdlab.cli import main

METHODS = ("independent", "logit_matching")
CODE = ("kdlab", "configs/digits")


def accuracy(runs: Path, name: str) -> float:
    result = json.loads((runs / "digits" / name / "result.json").read_text())
    return 100 * result["student"]["test"]["accuracy"]


def summary(values: list[float]) -> dict[str, float]:
    """Mean, sample standard deviation and the half width of the 95% Student-t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    rounded = {"mean": statistics.mean(values), "sd": statistics.stdev(values), "ci95_half_width": float(half)}
    return {key: round(value, 3) for key, value in rounded.items()}


def measure(seeds: int, runs: Path) -> dict[str, object]:
    teacher = ["--model.teacher.checkpoint", str(runs / "digits" / "teacher-seed0" / "student.safetensors")]
    accuracies: dict[str, list[float]] = {method: [] for method in METHODS}
    run(["fit", "--config", "digits/teacher", "--runs_dir", str(runs)])
    for seed in range(seeds):
        for method in METHODS:
            arguments = ["fit", "--config", f"digits/{method}", "--runs_dir", str(runs), "--seed_everything", str(seed)]
            run(arguments + (teacher if method == "logit_matching" else []))
            accuracies[method].append(round(accuracy(runs, f"{method}-seed{seed}"), 2))
    differences = [b - a for a, b in zip(*(accuracies[method] for method in METHODS), strict=True)]
    test = stats.ttest_rel(accuracies["logit_matching"], accuracies["independent"])
    return {
        "unit": "test accuracy, percent, 360 held-out digits",
        "n": seeds,
        "seeds": list(range(seeds)),
        "teacher": round(accuracy(runs, "teacher-seed0"), 2),
        "accuracy": accuracies,
        **{method: summary(accuracies[method]) for method in METHODS},
        "difference": summary(differences) | {"paired_t_test_p": round(float(test.pvalue), 4)},
    }


def run(arguments: list[str]) -> None:
    code = main(arguments)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    parser = measuring.options(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=measuring.RESULTS / "digits_methods.json")
    options = parser.parse_args()
    environment = measuring.environment(sys.argv, CODE, (*measuring.PACKAGES, "scipy", "scikit-learn"))
    sys.argv = sys.argv[:1]  # LightningCLI warns about arguments that are not its own
    with tempfile.TemporaryDirectory() as folder:
        result = measure(2 if options.quick else options.seeds, Path(folder))
    if not options.quick:
        write_text(options.out, json.dumps(result | {"environment": environment}, indent=1) + "\n")
    for name in (*METHODS, "difference"):
        print(name, result[name])
