"""``python -m kdlab study``: many runs from one file, their statistics and their report."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdlab.errors import UsageError
from kdlab.extras import require
from kdlab.verbs.arguments import VerbParser, positive_float, positive_int

if TYPE_CHECKING:
    from kdlab.studies.cluster import RayExecutor
    from kdlab.studies.executor import Check
    from kdlab.studies.local import LocalExecutor
    from kdlab.studies.plan import Plan, PlannedRun

log = logging.getLogger(__name__)

OF_RAY = ("ray_address", "cpus_per_run", "gpus_per_run")


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "study",
        "FILE [options]",
        "Run every variant, grid value and seed of a study file, and write tables and figures. Finished runs never\n"
        "run again: the same command continues a study that was interrupted. A failed run does not stop the\n"
        "others; exit code 6 tells of it.",
        ["configs/studies/digits_alpha.yaml --quick",
         "studies/alpha_mnist --data_dir data --dry-run",
         "studies/techniques_cifar100 --data_dir data --config run/gpu",
         "studies/grid_mnist --data_dir data --shard 1/4",
         "studies/grid_mnist --data_dir data --executor ray --ray_address auto --gpus_per_run 0.25"],
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="study file, by path or by name")
    parser.add_argument("--quick", action="store_true", help="make it small, as its section `quick` says")
    parser.add_argument("--dry-run", action="store_true", help="check every config, show the plan, and run nothing")
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are")
    parser.add_argument(
        "--config", metavar="OVERLAY", action="append", default=[],
        help="how all runs run, over what the study says: run/gpu; several times for several",
    )  # fmt: skip
    parser.add_argument("--runs_dir", metavar="DIR", type=Path, default=Path("runs"), help="folder of all runs [runs]")
    parser.add_argument(
        "--jobs", metavar="N", type=positive_int,
        help="runs at a time, which share the cores [one per GPU, or per core without any; all that Ray can place]; "
             "each has one GPU, with --jobs 1 all of them",
    )  # fmt: skip
    parser.add_argument(
        "--shard", metavar="I/N", type=shard, default=(1, 1), help="only every N-th run, from the I-th (1 to N) on"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed before")
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster [local]"
    )
    parser.add_argument(
        "--ray_address", metavar="ADDRESS",
        help="HOST:PORT of a cluster, auto for the one of this machine, local to start one for this call [local]",
    )  # fmt: skip
    parser.add_argument("--cpus_per_run", metavar="N", type=positive_float, help="that Ray reserves [1]")
    parser.add_argument(
        "--gpus_per_run", metavar="N", type=share_of_gpus,
        help="that Ray reserves; 0.25 puts four runs on one [1 where there are any, else 0]",
    )  # fmt: skip
    return parser


def share_of_gpus(text: str) -> float:
    """Read 0, a part of one GPU, or a number of GPUs."""
    number = float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) else -1.0
    if number < 0 or (number > 1 and number != int(number)):
        raise argparse.ArgumentTypeError(f"{text} is no share of GPUs; give 0, a part of one as 0.25, or 1, 2, 3")
    return number


def shard(text: str) -> tuple[int, int]:
    """Read ``2/4`` as the second of four parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text} is no part of a whole; give 1/4 to 4/4 (SLURM: --array=1-4)")
    return part, parts


def main(arguments: Sequence[str]) -> None:
    """Run the study that the arguments name.

    Raises:
        UsageError: if an option, the study file or one of its configs is wrong; then nothing has run.
        FailedRunsError: if runs failed; all others are done.
        SystemExit: with 128 and the number of the signal, if it was told to stop.
    """
    options = parser().parse_args(arguments)
    given = [name for name in OF_RAY if getattr(options, name) is not None]
    if options.executor == "local" and given:
        raise UsageError(f"--{given[0]} is for Ray; add --executor ray, or leave it out")
    if options.executor == "ray":
        require("ray", "cluster", "--executor ray")

    import torch

    from kdlab.config_files import find_config, find_configs
    from kdlab.messages import set_up_messages
    from kdlab.studies.configs import ConfigReader
    from kdlab.studies.file import read_study
    from kdlab.studies.ledger import Entry, study_folder
    from kdlab.studies.planner import make_plan
    from kdlab.studies.scores import LedgerScore
    from kdlab.yaml_check import check_yaml

    set_up_messages()
    torch.set_num_threads(1)  # threads would not survive the fork of a run
    path = Path(find_config(options.file))
    check_yaml(path)
    place = [] if options.data_dir is None else ["--data.data_dir", options.data_dir]
    of_all = [*place, *find_configs([word for name in options.config for word in ("--config", name)])]
    content = read_study(path, options.quick)
    if options.shard != (1, 1) and any(variant.search for variant in content.variants):
        raise UsageError(
            f"--shard cannot divide {content.name}: each round of a search is planned from all results before it; "
            "leave --shard out on every machine, then they share the runs of each round"
        )
    study = study_folder(options.runs_dir, content.name)
    read_config, score = ConfigReader(of_all), LedgerScore(study, options.retry_failed)
    plan = make_plan(content, read_config, score)
    chosen = choose(plan, *options.shard)
    jobs = options.jobs if options.executor == "ray" else options.jobs or _slots()
    _show(plan, chosen, study, jobs)
    if options.dry_run:
        return
    done = study.exists() and all(Entry(study, run.id).state == "done" for run in chosen)
    if options.executor == "local" and not done:  # other machines may have their data elsewhere
        read_config.prepare_data()
    with _executor(options, study, jobs, of_all, read_config.is_as_planned) as executor:

        def next_plan() -> Plan:
            score.tried = executor.ends.keys()
            return make_plan(content, read_config, score)

        _run(plan, chosen, executor, next_plan)


def choose(plan: Plan, part: int, parts: int) -> list[PlannedRun]:
    """Every n-th student of the plan, and the teachers that they need, which shards share."""
    if parts == 1:
        return list(plan.runs)
    chosen = list(plan.students[part - 1 :: parts])
    teachers = {run.id: run for run in plan.runs if run.role == "teacher"}
    needed: set[str] = set()
    new = {need for run in chosen for need in run.needs}
    while new:
        needed |= new
        new = {need for name in new for need in teachers[name].needs} - needed
    return [run for run in teachers.values() if run.id in needed] + chosen


def _open(plan: Plan, states: Sequence[str]) -> set[str]:
    """The runs that may still be done: not those that need one that has failed."""
    lost: set[str] = set()
    unfinished = set()
    for run, state in zip(plan.runs, states, strict=True):  # teachers before those that need them
        if state == "failed" or lost.intersection(run.needs):
            lost.add(run.id)
        elif state in ("pending", "running"):
            unfinished.add(run.id)
    return unfinished


def _expected(plan: Plan, chosen: Sequence[PlannedRun]) -> int:
    """Runs of this call; cells of several variants may be the same run."""
    return len({run.id for run in chosen}) + plan.to_come


def _slots() -> int:
    """Runs at a time on this machine."""
    import torch

    from kdlab.studies.local import cores

    # asks the driver's library, which leaves no context behind as `torch.cuda.is_available` may
    return torch.cuda.device_count() or cores()


@contextmanager
def _executor(
    options: argparse.Namespace, study: Path, jobs: int | None, of_all: Sequence[str], is_as_planned: Check
) -> Iterator[LocalExecutor | RayExecutor]:
    if options.executor == "ray":
        from kdlab.studies.cluster import RayExecutor, connected

        with connected(options.ray_address or "local"):
            cpus = options.cpus_per_run or 1.0
            yield RayExecutor(study, cpus, options.gpus_per_run, jobs, of_all, options.retry_failed, is_as_planned)
    else:
        import torch

        from kdlab.studies.local import LocalExecutor

        gpus = torch.cuda.device_count() if jobs != 1 else None
        yield LocalExecutor(study, jobs or 1, of_all, options.retry_failed, is_as_planned, gpus)


def _show(plan: Plan, chosen: Sequence[PlannedRun], study: Path, jobs: int | None) -> None:
    from kdlab.studies.ledger import STATES, Entry, leftovers
    from kdlab.studies.plan import cells
    from kdlab.studies.progress import estimate, measured_seconds
    from kdlab.studies.results import doubts_about

    ids = dict.fromkeys(run.id for run in chosen)  # cells of several variants may be the same run
    states = [Entry(study, one).state for one in ids] if study.exists() else ["pending"] * len(ids)
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    seeds = sorted({run.seed for run in plan.students})
    for doubt in filter(None, map(doubts_about, plan.metrics)):
        log.warning("metrics: %s", doubt)
    print(f"study {plan.name}: {len(plan.runs)} runs, {len(cells(plan))} cells x {len(seeds)} seeds, in {study}")
    for run in plan.runs:
        if run.role == "teacher":
            print(f"  teacher {run.label}: {run.id}")
    for label in cells(plan):
        print(f"  {label}")
    for search in plan.searches:
        print(f"search {search.variant}: {len(search.suggested)} of {search.trials} trials are planned; "
              f"maximizes {search.maximize}")  # fmt: skip
    more = f", then at most {plan.to_come} of later rounds" if plan.to_come else ""
    print(f"this call: {len(ids)} runs ({counts}){more}, {jobs or 'as many as the cluster holds'} at a time")
    old = leftovers(study, {run.id for run in plan.runs})
    if old and not plan.to_come:  # which rounds to come may find
        print(
            f"{len(old)} finished runs in {study} are of an earlier version of the study, or of another one "
            "of this name, and not used"
        )
    seconds, left = measured_seconds(plan, study), len(states) - states.count("done") + plan.to_come
    if left and jobs:
        time = "not known before the first run" if seconds is None else f"about {estimate(seconds, left, jobs)}"
        print(f"time for the rest: {time}")


def _run(
    plan: Plan, chosen: Sequence[PlannedRun], executor: LocalExecutor | RayExecutor, next_plan: Callable[[], Plan]
) -> None:
    from kdlab.studies.ledger import Entry, FailedRunsError
    from kdlab.studies.progress import StudyProgress
    from kdlab.studies.report import FOLDER, write_report

    study = executor.study
    plan.write(study)
    with StudyProgress(plan, study, _expected(plan, chosen), executor.jobs) as progress:
        executor.run(chosen, progress.report, progress.tick)
        while plan.to_come and not executor.stopped_by:
            before, plan = plan, next_plan()
            if plan == before:  # the teacher of a trial has failed
                break
            plan.write(study)
            chosen = list(plan.runs)
            progress.expect(_expected(plan, chosen))
            executor.run(chosen, progress.report, progress.tick)
    if executor.stopped_by:
        print("stopped; the same command continues the study")
        raise SystemExit(128 + executor.stopped_by)
    states = [Entry(study, run.id).state for run in plan.runs]
    failed = [ended for ended in progress.ends if ended.end != "done"]
    students = [state for run, state in zip(plan.runs, states, strict=True) if run.role == "student"]
    if "done" in students and (failed or not _open(plan, states)):
        write_report(study)
        print(f"report in {study / FOLDER}")
    elif not failed:
        print(f"{states.count('done')} of {len(states)} runs are done; the last shard writes the report, or: "
              f"python -m kdlab report {study}")  # fmt: skip
    if failed:
        raise FailedRunsError(
            f"{len(failed)} of {len(chosen)} runs are not done, for example {failed[0].run.label} "
            f"({failed[0].reason}); a run's error is in its log.txt, here in "
            f"{Entry(study, failed[0].run.id).folder.path}; mend it, and try again what failed with --retry-failed"
        )
