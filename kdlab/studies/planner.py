"""From a study to its plan: every run with the hash of what it computes, checked by the real parser before it runs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from kdlab.errors import UsageError
from kdlab.run.recipes import recipes_in
from kdlab.run.science import differences
from kdlab.studies.plan import Plan, PlannedRun, SearchedVariant, cell_label, compared_cells
from kdlab.studies.results import lookup
from kdlab.studies.sampler import Trial, suggest
from kdlab.studies.search import OF_VALIDATION, Search
from kdlab.studies.sections import Settings
from kdlab.studies.study import Study, StudyTeacher, Variant
from kdlab.studies.taught import Trained, with_teachers

PLACES = ("runs_dir", "experiment", "name", "ckpt_path")  # of a run
ID_LENGTH = 16  # hexadecimal digits: 64 bits
# what all runs of one table must share: other values are another protocol
PROTOCOL = ("data.class_path", "data.init_args.val_fraction", "data.init_args.split_seed",
            "data.init_args.image_size", "data.init_args.in_channels",
            "trainer.limit_val_batches", "aside.trainer.limit_test_batches")  # fmt: skip

# arguments of `fit` -> what decides the weights, and under ``aside`` what else the config says
Resolve = Callable[[Sequence[str]], Mapping[str, Any]]
# the runs of a trial, what is to be high -> their mean; open: some of them have not ended; failed: some have failed
Score = Callable[[Sequence[PlannedRun], str], float | Literal["open", "failed"]]


def nothing_has_run(runs: Sequence[PlannedRun], key: str) -> Literal["open"]:
    """The `Score` of a study that begins: no trial has ended."""
    return "open"


def make_plan(study: Study, resolve: Resolve, score: Score = nothing_has_run) -> Plan:
    """Expand a study into its runs; of searches those of the rounds that can be planned.

    Args:
        study: as its file says.
        resolve: parses arguments of ``fit``.
        score: tells what the trials of searches have reached.

    Raises:
        UsageError: for a key or value that the parser refuses, a comparison of cells that do not exist, a teacher that
            is trained nowhere in the study, or variants that would not be tested alike.
    """
    planner = _Planner(study, resolve)
    for teacher in study.teachers:
        planner.add_teacher(teacher)
    searches = []
    for variant in study.variants:
        if variant.search is None:
            for values in _combinations(variant):
                planner.add(variant, values)
        else:
            searches.append(_rounds(planner, variant, variant.search, score))
    runs = tuple(planner.runs)
    idle = [run.variant for run in runs if run.role == "teacher" and run.id not in planner.needed]
    if idle:
        raise UsageError(f"study {study.name}: nobody learns from teacher {idle[0]}; set a checkpoint to @{idle[0]}")
    # what a search maximizes is shown of all runs
    metrics = tuple(dict.fromkeys([*study.metrics, *(search.maximize for search in searches)]))
    plan = Plan(study.name, study.question, metrics, study.comparisons, runs, tuple(searches), study.published)
    for comparison in plan.comparisons:
        compared_cells(plan, comparison, {search.variant: search.unnamed_best for search in searches})
    return plan


def _combinations(variant: Variant) -> Iterator[Settings]:
    for values in itertools.product(*variant.grid.values()):
        yield dict(zip(variant.grid, values, strict=True))


def _rounds(planner: _Planner, variant: Variant, search: Search, score: Score) -> SearchedVariant:
    """Plan the first round of a search, and each other one whose runs before have all ended."""
    for values in search.corners():
        planner.check(variant, values)
    suggested: list[Settings] = []
    tried: list[Trial] = []
    while len(suggested) < search.trials and len(tried) == len(suggested):
        new = suggest(search, planner.study.seeds[0], tried)
        suggested += new
        scores = [score(planner.add(variant, values), search.maximize) for values in new]
        if "open" not in scores:
            tried += [Trial(values, None if found == "failed" else float(found))
                      for values, found in zip(new, scores, strict=True)]  # fmt: skip
    return SearchedVariant(variant.name, search.maximize, search.trials, tuple(suggested), search.logarithmic)


class _Planner:
    """Collects the runs of a study.

    Args:
        study: as its file says.
        resolve: as in `make_plan`.
    """

    def __init__(self, study: Study, resolve: Resolve) -> None:
        self.study = study
        self.runs: list[PlannedRun] = []
        self.needed: set[str] = set()  # runs whose weights are used, or may be used by a trial to come
        self._resolve = resolve
        self._teachers: dict[str, Trained] = {}  # by name
        self._cells: dict[str, list[PlannedRun]] = {}  # by label
        self._first: tuple[str, Settings] | None = None  # label of a cell, and its config
        self._aside: dict[str, tuple[str, object]] = {}  # id of a run -> label of its cell, what does not decide its id

    def add_teacher(self, teacher: StudyTeacher) -> None:
        """Plan the run of a teacher, which later ones may learn from."""
        (run,), config = self._cell(teacher, {}, teacher.settings, (teacher.seed,))
        self._check_same_run(f"teacher {teacher.name}", [run], config)
        self.runs.append(run)
        self._teachers[teacher.name] = Trained(run.id, config["model"].get("init_args", {}).get("student"))

    def add(self, variant: Variant, values: Settings) -> list[PlannedRun]:
        """Plan the runs of a cell, once, and return them."""
        label = cell_label(variant.name, values)
        if label not in self._cells:  # a search may suggest the same again
            self._cells[label] = self.check(variant, values)
            self.runs += self._cells[label]
        return self._cells[label]

    def check(self, variant: Variant, values: Settings) -> list[PlannedRun]:
        """The runs of a cell that can be run and can stand in one table with the others.

        Raises:
            UsageError: if it cannot.
        """
        runs, config = self._cell(variant, values, variant.settings_at(values), self.study.seeds)
        label = cell_label(variant.name, values)
        self._first = self._first or (label, config)
        _check_same_protocol(self._first, (label, config))
        self._check_same_run(label, runs, config)
        search = variant.search
        held_out = config["data"]["init_args"].get("val_fraction") != 0
        if search and search.maximize.startswith(OF_VALIDATION) and not held_out:
            raise UsageError(
                f"study {self.study.name}, {variant.name}: its search maximizes {search.maximize}, but "
                "data.val_fraction is 0, so no images are held out to validate on; set it to 0.1, for instance"
            )
        return runs

    def _check_same_run(self, label: str, runs: Sequence[PlannedRun], config: Settings) -> None:
        """Refuse what differs only in what an id leaves out: it would be one run under two names."""
        for run in runs:
            other, before = self._aside.setdefault(run.id, (label, config.get("aside")))
            for difference in differences(before, config.get("aside"))[:1]:
                raise UsageError(
                    f"study {self.study.name}: {label} would be the very same run as {other}, though {difference}: "
                    "that changes how a run runs and not what it learns; leave it out, or make a study of its own"
                )

    def _cell(
        self, part: Variant | StudyTeacher, values: Settings, own: Settings, seeds: Sequence[int]
    ) -> tuple[list[PlannedRun], Settings]:
        """The runs of one cell, one per seed, and their config with seed 0."""
        where = f"study {self.study.name}, {cell_label(part.name, values)}"
        settings = {**self.study.settings, **own}
        for key in PLACES:
            if key in settings:
                raise UsageError(f"{where}: {key} is set by the study, which has a folder for each run; leave it out")
        if "seed_everything" in settings:
            raise UsageError(f"{where}: seed_everything is set by the study; list the seeds under `seeds`")
        filled, needs = with_teachers(settings, self._teachers, where)
        self.needed |= needs
        arguments = [argument for config in part.base for argument in ("--config", config)]
        arguments += [argument for key, value in filled.items() for argument in (f"--{key}", as_argument(value))]
        try:
            config = self._resolve([*arguments, "--seed_everything", "0"])
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        learns_from = next(recipes_in(config["model"]), None)
        if learns_from is not None:
            raise UsageError(
                f"{where}: each run would look for its teacher by the recipe {learns_from['recipe']}; name it "
                "under `teachers` and set its checkpoint to @NAME"
            )
        role: Literal["teacher", "student"] = "teacher" if isinstance(part, StudyTeacher) else "student"
        run = PlannedRun("", role, part.name, values, 0, tuple(arguments), tuple(sorted(needs)))
        return [
            replace(run, id=run_id(config, seed), seed=seed, arguments=(*arguments, "--seed_everything", str(seed)))
            for seed in seeds
        ], config


def run_id(config: Mapping[str, Any], seed: int) -> str:
    """Name what a run computes: equal for equal configs, whatever the study, the machine and the folder.

    Args:
        config: as `Resolve` returns it with seed 0.
        seed: of the run.
    """
    science = {key: value for key, value in config.items() if key != "aside"}
    text = json.dumps([science, seed], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def as_argument(value: object) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _check_same_protocol(first: tuple[str, Settings], now: tuple[str, Settings]) -> None:
    """Refuse variants of different data or splits: no table could hold both."""
    (label, before), (other, after) = first, now
    for key in PROTOCOL:
        one, two = lookup(before, key), lookup(after, key)
        if one != two:
            name = key.removeprefix("aside.").replace(".init_args", "").removesuffix(".class_path")
            raise UsageError(
                f"{name} is {one} in {label} and {two} in {other}; one table needs one protocol, so make two studies"
            )
