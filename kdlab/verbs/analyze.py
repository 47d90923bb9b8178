"""``python -m kdlab analyze``: what a student has learnt from its teacher, in numbers and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser, positive_float

if TYPE_CHECKING:
    from kdlab.analysis import Analysis, Answers


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "analyze",
        "RUN [--against RUN] [options]",
        "Compare a run's student with its teacher, and with a second student of it: agreement, divergence,\n"
        "calibration, layers (CKA), wrong labels, and where standardized logits mend what plain KL gets wrong. Writes\n"
        "RUN/analysis/analysis.json, logit_standardization.md and figures, and the main figures into RUN/result.json.\n"
        "Without --against the second student is the independent one beside the run, if there is one: same network,\n"
        "same data, no teacher.",
        ["runs/digits/logit_matching-seed0",
         "runs/digits/logit_standardization-seed0 --against runs/digits/logit_matching-seed0 --split test"],
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="folder of the run, or a checkpoint in it")
    parser.add_argument("--against", metavar="RUN", help="a second run on the same data")
    parser.add_argument(
        "--split", nargs="+", choices=("test", "val", "train"), default=["test", "train"], help="[test train]"
    )
    parser.add_argument(
        "--layers", nargs="+", metavar="NAME", default=[],
        help="layers of student or teacher to compare by CKA [those the method taps, else the stages of each network]",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", metavar="T", type=positive_float, help="of the softened KL [that of the run's loss, else 4]"
    )
    parser.add_argument(
        "--ddof", type=int, choices=(0, 1), help="of the standardization: 1 sample, 0 population [the run's, else 1]"
    )
    parser.add_argument(
        "--without_teacher", action="store_true", help="go on where the weights of a run's teacher are gone"
    )
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
    from kdlab.messages import set_up_messages
    from kdlab.verbs.analysis_files import add_headline, analysis_folder, write_analysis
    from kdlab.verbs.answers import NO_LAYERS, choose_layers, collect
    from kdlab.verbs.device import find_device
    from kdlab.verbs.independent import find_independent
    from kdlab.verbs.origin import Subject, describe_measurement, loss_settings
    from kdlab.verbs.summary import print_summary

    set_up_messages()
    device = find_device(options.accelerator)
    required = not options.without_teacher
    subject = Subject.load(options.run, options.data_dir, required)
    against_path = options.against or find_independent(subject.folder.path)
    against = None if against_path is None else Subject.load(against_path, options.data_dir, required)
    if against is not None and against.run.weights == subject.run.weights:
        raise UsageError(f"--against is {against_path}, the run itself; name another run")
    temperature, ddof = loss_settings(subject.run, options.temperature, options.ddof)
    layers = choose_layers(subject.run, subject.teacher, options.layers)
    splits: dict[str, Analysis] = {}
    for split in dict.fromkeys(options.split):
        answers = collect(subject.run, split, subject.teacher, layers, device)
        others = None if against is None else collect(against.run, split, against.teacher, NO_LAYERS, device)
        splits[split] = analyze(*_named_apart(answers, others), temperature, ddof)
    # nothing is written before everything is known: what fails leaves the analysis of before as it was
    origin = subject.origin | describe_measurement(temperature, ddof, device)
    reports = {split: analysis.as_dict() for split, analysis in splits.items()}
    content = {"format": 2, "run": str(options.run), "against": against_path and str(against_path), "origin": origin,
               "origin_against": against and against.origin}  # fmt: skip
    folder = analysis_folder(subject.run)
    write_analysis(folder, content, splits, reports)
    add_headline(subject, splits)
    print_summary(reports)
    print(f"analysis.json, logit_standardization.md and figures are in {folder}")


def _named_apart(first: Answers, second: Answers | None) -> tuple[Answers, Answers | None]:
    """Runs of different experiments may have the same name."""
    from dataclasses import replace

    if second is not None and first.name == second.name:
        second = replace(second, name=f"{second.name} (against)")
    return first, second
