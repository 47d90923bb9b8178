"""The CIFAR-100 tables on one GPU that is at hand in slices: the same command goes on until a table is whole.

  python benchmarks/cifar100.py smoke --data_dir DIR                # every method for 50 steps, then the tests for GPUs
  python benchmarks/cifar100.py techniques --data_dir DIR --carry_out carry         # also: published,
  python benchmarks/cifar100.py techniques --data_dir DIR --carry_in carry ...      # function_matching, equal_cost

A study is stopped when the time is over, and its runs write their resume points. What must travel to go on elsewhere is
packed into pieces of 15 MiB. A table that is whole is copied to benchmarks/results/studies; the costs of its networks
are measured after its runs, one at a time. The exit code is 0 when the table is whole, 75 when there is more to do.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from carrying import pack, unpack
from measuring import RESULTS, options

from kdlab.studies.ledger import STATES, Entry, FailedRunsError, study_folder
from kdlab.studies.plan import Plan
from kdlab.studies.results import Row, lookup, read_results
from kdlab.studies.statistics import Summary

TABLES = {
    "smoke": ("smoke_cifar100",),
    "techniques": ("techniques_cifar100",),
    "published": ("published_resnet32x4_resnet8x4", "published_resnet56_resnet20", "published_wrn40_2_wrn16_2",
                  "published_vgg13_vgg8"),
    "function_matching": ("function_matching_cifar100",),
    "equal_cost": ("equal_cost_cifar100",),
}  # fmt: skip
OVERLAYS = {"smoke": ("run/gpu", "run/compiled")}  # the others: of --overlays
ALONE = ("smoke", "equal_cost")  # clock and energy counter of these runs are read: one at a time
PROFILED = ("techniques",)
COMMITTED = ("summary.json", "results.csv", "per_class.csv", "costs.json", "costs.csv")
MORE_TO_DO = 75  # EX_TEMPFAIL
STOPPING_S = 45.0  # for resume points; then at once
ROOT = RESULTS.parents[1]


def run_until(command: Sequence[str], deadline: float) -> int | None:
    """Run a command; None if the time was over and it was told to stop."""
    process = subprocess.Popen([sys.executable, "-m", *command])
    try:
        return process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()  # no SIGINT, which programs ignore that were started in the background
    try:
        process.wait(timeout=STOPPING_S)
    except subprocess.TimeoutExpired:
        process.terminate()  # at once
        process.wait()
    return None


def states(study: Path) -> dict[str, int]:
    """Return how many runs of a study are in which state; none before it has been planned."""
    if not (study / "study.json").is_file():
        return {}
    plan = Plan.read(study)
    found = [Entry(study, name).state for name in dict.fromkeys(run.id for run in plan.runs)]
    return {state: found.count(state) for state in STATES if state in found}


def measure_costs(study: Path, deadline: float, quick: bool) -> int | None:
    """Profile each network of a finished study once, alone on the device, and join it with the accuracies.

    Returns:
        The exit code of the profiler; None if the time was over.
    """
    results, out = read_results(study), study / "report" / "costs.json"
    first = {network_of(row): str(row.folder) for row in reversed((*results.rows, *results.teachers))}
    short = ["--batch_size", "2", "--seconds", "0.01"] if quick else []
    if not out.exists():
        code = run_until(["kdlab", "profile", *first.values(), *short, "--out", str(out)], deadline)
        if code != 0:
            out.unlink(missing_ok=True)
            return code
    found = dict(zip(first, json.loads(out.read_text())["networks"], strict=True))
    with out.with_suffix(".csv").open("w", newline="") as file:
        lines = [
            costs_line(cell, rows, found[network_of(rows[0])]) for cell, rows in results.cells_and_teachers.items()
        ]
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return 0


def network_of(row: Row) -> str:
    """Return what equal networks share."""
    return f"{lookup(row.result, 'student.network')}, {lookup(row.result, 'student.parameters')}"


def costs_line(cell: str, rows: Sequence[Row], costs: dict) -> dict[str, object]:
    """Return a line of the table: accuracies in per cent, and what the network costs."""
    top1 = Summary.of([100 * row.accuracy for row in rows])
    latency = {run["batch_size"]: run for run in costs["latency"].get("runs", ()) if run["variant"] == "eager"}
    return {
        "cell": cell,
        "network": network_of(rows[0]),
        "n": top1.n,
        "top1": top1.mean,
        "top1_half_width": top1.half_width,
        "top5": 100 * Summary.of([lookup(row.result, "student.test.top5") for row in rows]).mean,
        **{f"latency_ms_p50_at_{size}": run["latency_ms_p50"] for size, run in latency.items()},
        "size_bytes": costs["size"].get("size_bytes"),
        "macs": costs["macs"].get("macs"),
        "energy_mj_per_image": costs["energy"].get("energy_mj_per_image"),
        "energy_reason": costs["energy"].get("reason"),
    }


def check_smoke(study: Path, quick: bool) -> list[str]:
    """Print a line for each run of the smoke study, and return what is wrong with it."""
    wrong = []
    print(f"{'method':26s} {'images/s':>9s} {'energy read from':>40s}")
    results = read_results(study)
    for row in (*results.teachers, *results.rows):
        cost, latency = row.result["training_cost"], row.result["profile"]["latency"]
        speed = cost["train_images"] / cost["train_s"]
        print(f"{row.run.variant:26s} {speed:9,.0f} {cost['meter'] or cost['reason']:>40s}")
        queued = all(run["queued_ms_p50"] for run in latency.get("runs", [{"queued_ms_p50": None}]))
        if not quick and (cost["train_energy_j"] is None or not queued):
            wrong.append(f"{row.run.variant}: energy or latency by CUDA events is missing")
    return wrong + [f"{run.label} is not done" for run in results.missing]


def main() -> int:
    """Work on a table for some minutes."""
    parser = options(__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data_dir", required=True, help="the same, as it is written, in every slice")
    parser.add_argument("--minutes", type=float, default=8.5, help="until the runs are told to stop [8.5]")
    parser.add_argument("--jobs", type=int, default=6, help="runs at a time; smoke and equal_cost have one [6]")
    parser.add_argument(
        "--overlays", nargs="*", default=["run/gpu", "run/cuda_graphs"], help="how runs run [run/gpu run/cuda_graphs]"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="the same in every slice [runs]")
    parser.add_argument("--carry_in", type=Path, nargs="*", default=[], help="folders with pieces of earlier slices")
    parser.add_argument("--carry_out", type=Path, help="folder for the pieces")
    parser.add_argument("--out", type=Path, help="where whole tables are copied [benchmarks/results/studies]")
    told = parser.parse_args()
    if not told.minutes > 0:
        parser.error(f"--minutes is {told.minutes:g}; give a positive number")
    deadline = time.monotonic() + 60 * told.minutes
    for folder in told.carry_in:
        print(f"{folder}: {unpack(folder, told.runs_dir)} files", flush=True)
    out = told.out or (None if told.quick else RESULTS / "studies")
    jobs = "1" if told.table in ALONE else str(told.jobs)
    how = () if told.quick else OVERLAYS.get(told.table, told.overlays)
    whole, wrong = [], []
    folders = [study_folder(told.runs_dir, f"{name}-quick" if told.quick else name) for name in TABLES[told.table]]
    for name, study in zip(TABLES[told.table], folders, strict=True):
        command = ["kdlab", "study", f"{ROOT}/configs/studies/{name}.yaml", "--data_dir", told.data_dir, "--jobs", jobs]
        command += ["--runs_dir", str(told.runs_dir), *(["--quick"] if told.quick else [])]
        command += [word for overlay in how for word in ("--config", overlay)]
        code = run_until(command, deadline)
        if code == 0 and told.table in PROFILED:
            code = measure_costs(study, deadline, told.quick)
        if code == 0:
            whole.append(name)
            for file in (study / "report" / each for each in COMMITTED if out):
                if file.exists():
                    (out / name).mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, out / name)
        elif code not in (0, None):
            wrong.append(f"{name}: exit code {code}")
        if time.monotonic() > deadline:
            break
    if told.table == "smoke" and code in (0, FailedRunsError.exit_code):
        wrong += check_smoke(folders[0], told.quick)
        tests = run_until(["pytest", "-q", "-n", "4", "-m", "gpu", f"{ROOT}/tests/gpu"], deadline)
        wrong += [] if tests == 0 else [f"tests/gpu: {'the time was over' if tests is None else f'exit code {tests}'}"]
    for study in folders:
        counts = ", ".join(f"{count} {state}" for state, count in states(study).items())
        print(f"{study.name}: {counts or 'not begun'}")
    if told.carry_out:
        for file in pack(told.runs_dir, folders, told.carry_out):
            print(f"no room for {file}: it starts again elsewhere")
    print("\n".join(wrong) or ("whole" if len(whole) == len(TABLES[told.table]) else "more to do: the same command"))
    return 1 if wrong else 0 if len(whole) == len(TABLES[told.table]) else MORE_TO_DO


if __name__ == "__main__":
    sys.exit(main())
