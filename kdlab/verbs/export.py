"""``python -m kdlab export``: a trained student as one file that was checked against the original."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser, check_file, positive_float, positive_int

log = logging.getLogger(__name__)

FORMAT_NAMES = ("safetensors", "torch_export", "onnx")


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "export",
        "RUN --format FORMAT [options]",
        "Write a run's bare student to one file: no teacher, no adapters. The file is read back and must answer real\n"
        "test images as the original does. Preprocessing and class names are in its metadata; FILE.json beside it\n"
        "says how close and how fast it is.",
        ["runs/digits/logit_matching-seed0 --format onnx",
         "runs/digits/logit_matching-seed0 --format torch_export --out student.pt2 --tolerance 1e-5"],
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="folder of the run, or a checkpoint in it")
    parser.add_argument("--format", choices=FORMAT_NAMES, required=True, help="of the file")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the file [RUN/export/student.safetensors, .pt2 or .onnx; of a checkpoint, its name]",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--tolerance", metavar="D", type=positive_float, default=1e-4,
        help="largest difference of a logit from the original's; above it nothing is written, exit code 5 [1e-4]",
    )  # fmt: skip
    parser.add_argument("--batch_size", metavar="N", type=positive_int, default=128, help="to time beside 1 [128]")
    parser.add_argument("--seconds", metavar="S", type=positive_float, default=1.0, help="to time each batch size [1]")
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are, if not where the run found them")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Export the student of the run that the arguments name, and say how close and how fast the file is.

    Raises:
        UsageError: if an option is wrong, the run is none, the file is there already, or a package is missing.
        IntegrityError: if weights or data are missing or damaged.
        NumericalError: if the file does not answer as the original.
    """
    options = parser().parse_args(arguments)
    suffix = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}[options.format]
    out = Path(options.out) if options.out else _default(Path(options.run), suffix)
    if out.suffix != suffix:
        raise UsageError(f"--out is {out}, but readers know {options.format} by the ending {suffix}; add it")
    if not out.exists():
        check_file(out)
    if out.is_dir() or (out.exists() and not options.overwrite):
        raise UsageError(f"{out} is there already; give --overwrite to replace it, or another --out")

    from kdlab.atomic import write_text
    from kdlab.messages import set_up_messages
    from kdlab.verbs.export_formats import FORMATS
    from kdlab.verbs.export_record import main_figures, record
    from kdlab.verbs.export_speed import compare_speed, in_words
    from kdlab.verbs.exporting import copy_without_hooks, export, real_images
    from kdlab.verbs.loaded import load_run
    from kdlab.verbs.run_record import add_to_run

    set_up_messages()
    file_format = FORMATS[options.format]
    file_format.check_installed()
    run = load_run(options.run, options.data_dir)
    about = out.with_name(f"{out.name}.json")
    parity = export(run, file_format, out, options.tolerance)
    about.unlink(missing_ok=True)  # it tells of the file that was replaced
    print(f"{out}: {out.stat().st_size:,} bytes")
    print(
        f"{parity.images} test images: max difference of a logit {parity.max_difference:.2e} "
        f"(tolerance {options.tolerance:g}), same class on {parity.same_class}"
    )
    network, sizes = copy_without_hooks(run.method.student), [1, options.batch_size]
    latency, undefined = compare_speed(network, file_format, out, real_images(run), sizes, options.seconds)
    content = record(run, file_format, out, parity, options.tolerance, latency, undefined)
    write_text(about, json.dumps(content, indent=1, allow_nan=False) + "\n")
    add_to_run(run, ("export", options.format), main_figures(content, out))
    for line in in_words(latency):
        print(line)
    for what, why in undefined.items():
        if file_format.engine is not None:
            log.warning("%s was not measured: %s", what, why)


def _default(run: Path, suffix: str) -> Path:
    """The run's export folder; a checkpoint that was named gives its name."""
    if not run.is_file():
        return run / "export" / f"student{suffix}"

    from kdlab.verbs.loaded import find_folder

    return find_folder(run).path / "export" / f"{run.stem}{suffix}"
