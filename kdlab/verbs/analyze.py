"""``python -m kdlab analyze``: what a student has learnt from its teacher, in numbers and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlab.verbs.arguments import VerbParser

if TYPE_CHECKING:
    from kdlab.analysis import Answers
    from kdlab.verbs.loaded import LoadedRun


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "analyze",
        "RUN [--against RUN] [options]",
        "Compare a run's student with its teacher, and with a second student of it: agreement, divergence,\n"
        "calibration, layers (CKA), wrong labels, and where standardized logits mend what plain KL gets wrong. Writes\n"
        "RUN/analysis/analysis.json and figures. Without --against the second student is the independent one beside\n"
        "the run, if there is one: same network, same data, no teacher.",
        ["runs/digits/logit_matching-seed0",
         "runs/digits/logit_standardization-seed0 --against runs/digits/logit_matching-seed0 --split test"],
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--against", metavar="RUN", help="folder of a second run on the same data")
    parser.add_argument(
        "--split", nargs="+", choices=("test", "val", "train"), default=["test", "train"], help="[test train]"
    )
    parser.add_argument(
        "--layers", nargs="+", metavar="NAME", default=[],
        help="layers of student or teacher to compare by CKA [those the method taps, else the stages of each network]",
    )  # fmt: skip
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are, if not where the run found them")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="where to run it [auto]")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Analyze the run that the arguments name, write the results into its folder, and show the main figures.

    Raises:
        UsageError: if an option is wrong, or a run is none.
        IntegrityError: if weights or data are missing or damaged.
    """
    options = parser().parse_args(arguments)

    from kdlab.analysis import analyze
    from kdlab.atomic import write_text
    from kdlab.messages import set_up_messages
    from kdlab.verbs.answers import Layers, choose_layers, collect
    from kdlab.verbs.device import find_device
    from kdlab.verbs.independent import find_independent
    from kdlab.verbs.loaded import load_run
    from kdlab.verbs.summary import print_summary

    set_up_messages()
    device = find_device(options.accelerator)
    run = load_run(options.run, options.data_dir)
    against_path = options.against or find_independent(Path(options.run))
    against = None if against_path is None else load_run(against_path, options.data_dir)
    teacher = run.teacher()
    other_teacher = None if against is None else against.teacher()
    layers = choose_layers(run, teacher, options.layers)
    reports: dict[str, Any] = {}
    folder, drawn = Path(options.run) / "analysis", set[Path]()
    for split in dict.fromkeys(options.split):
        answers = collect(run, split, teacher, layers, device)
        others = None if against is None else collect(against, split, other_teacher, Layers((), ()), device)
        reports[split] = analyze(*_named_apart(answers, others))
        drawn |= _draw(answers, folder, split)
    content = {"format": 1, "run": str(options.run), "against": against_path and str(against_path),
               "origin": _origin(run), "splits": reports}  # fmt: skip
    write_text(folder / "analysis.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    for old in set(folder.glob("*.svg")) - drawn:  # of an earlier analysis, which analysis.json no longer tells of
        old.unlink()
    print_summary(reports)
    print(f"analysis.json and figures are in {folder}")


def _named_apart(first: Answers, second: Answers | None) -> tuple[Answers, Answers | None]:
    """Runs of different experiments may have the same name."""
    from dataclasses import replace

    if second is not None and first.name == second.name:
        second = replace(second, name=f"{second.name} (against)")
    return first, second


def _origin(run: LoadedRun) -> dict[str, Any]:
    """What the analysed student is."""
    return {
        "method": type(run.method).__name__,
        "student": type(run.method.student).__name__,
        "epoch": run.card.get("epoch"),
        "data": type(run.data).__name__,
        "label_noise": run.data.label_noise,
    }


def _draw(answers: Answers, folder: Path, split: str) -> set[Path]:
    """Write the figures, the same bytes for the same answers, and return their paths."""
    import matplotlib

    from kdlab.analysis.figures import draw_all
    from kdlab.atomic import atomic_write

    figures = {folder / f"{split}_{name}.svg": figure for name, figure in draw_all(answers).items()}
    with matplotlib.rc_context({"svg.hashsalt": "kdlab"}):
        for path, figure in figures.items():
            with atomic_write(path) as part:
                figure.savefig(part, format="svg", metadata={"Date": None})
    return set(figures)
