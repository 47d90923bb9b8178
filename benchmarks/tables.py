"""Write the tables of docs/performance.md and README.md from the result files: ``python benchmarks/tables.py``.

A table stands below a comment that names its function here: ``<!-- benchmarks/tables.py: kd_step -->``. The tables of
a GPU are written where their results exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
EPYC = "amd_epyc"  # results of another processor, in a folder of their own
Spread = dict[str, float]


def read(name: str, folder: str = "") -> dict[str, Any]:
    """Return a result."""
    found: dict[str, Any] = json.loads((RESULTS / folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|\n" for line in lines)


def ranged(spread: Spread | None, digits: int = 1) -> str:
    """Say a median with its smallest and largest value."""
    return "" if spread is None else "{median:.{d}f} [{min:.{d}f}, {max:.{d}f}]".format(**spread, d=digits)


def median(spread: Spread | None, digits: int = 0) -> str:
    """Say a median."""
    return "" if spread is None else f"{spread['median']:,.{digits}f}"


def kd_step() -> str:
    """A distillation step beside a plain loop."""
    here, epyc = read("kd_step"), read("kd_step", EPYC)
    names = {
        "plain": "plain loop",
        "uncached, fp32": "teacher asked, float32",
        "uncached, fast": "teacher asked, `fast_cpu`",
        "uncached, fast, compiled": "teacher asked, `fast_cpu`, `compiled`",
        "remembered, fp32": "teacher remembered, float32",
        "remembered, fast": "teacher remembered, `fast_cpu`",
        "remembered, fast, compiled": "teacher remembered, `fast_cpu`, `compiled`",
        "independent, fast": "no teacher, `fast_cpu`",
    }
    rows = [
        [text, median(here["images_per_s"][name]), ranged(here["ratios"].get(f"{name} / plain")),
         median(here["utilization"].get(name), 2), ranged(epyc["ratios"].get(f"{name} / plain"))]
        for name, text in names.items()
    ]  # fmt: skip
    return markdown(["", "images/s", "/ plain loop", "of the peak", "/ plain loop, EPYC"], rows)


def epoch() -> str:
    """Whole epochs beside other frameworks."""
    here, epyc = read("epoch"), read("epoch", EPYC)
    names = {
        "plain loop": "plain loop",
        "torchdistill": "torchdistill",
        "torchdistill, eval teacher": "torchdistill, eval teacher",
        "RepDistiller": "RepDistiller",
        "kdlab, fp32": "kdlab, float32",
        "kdlab, fast": "kdlab, `fast_cpu`",
        "kdlab, fast, remembered": "kdlab, `fast_cpu`, remembered",
        "kdlab, fast, no teacher": "kdlab, `fast_cpu`, no teacher",
    }
    others, ratios = list(names)[:4], here["ratios"]
    rows = [
        [text, median(here["images_per_s"][name]), *(ranged(ratios.get(f"{name} / {other}")) for other in others),
         ranged(epyc["ratios"].get(f"{name} / torchdistill"))]
        for name, text in names.items()
    ]  # fmt: skip
    return markdown(["", "images/s", *(f"/ {other}" for other in others), "/ torchdistill, EPYC"], rows)


def overhead() -> str:
    """Steps of fit beside a bare loop."""
    here, epyc = read("overhead"), read("overhead", EPYC)
    names = {
        "ResNet20, CIFAR-100, batch 64": "ResNet20, CIFAR-100, batch 64",
        "MNISTNarrowConv, MNIST, batch 256": "20,490-parameter MNIST student, batch 256",
    }
    rows = [
        [text, ranged(here[name]["ratio"], 2), median(here[name]["fit_images_per_s"]),
         median(here[name]["bare_images_per_s"]), ranged(epyc[name]["ratio"], 2)]
        for name, text in names.items()
    ]  # fmt: skip
    return markdown(["", "fit / bare loop", "images/s of fit", "of the bare loop", "fit / bare loop, EPYC"], rows)


def growth() -> str:
    """What a step or a batch costs when one thing grows."""
    found = read("growth")
    units = {"images": "ms per batch of 64", "classes": "ms per step", "views": "ms per step",
             "students": "images/s of each", "processes": "images/s of all"}  # fmt: skip
    rows = []
    for what, unit in units.items():
        for name in (name for name in found if name.startswith(f"{what}, ")):
            each = found[name]
            value = ranged(each["ms"], 2) if "ms" in each else ranged(each["images_per_s"], 0)
            size = f"{each['file_bytes']['median'] / 2**20:,.0f} MiB" if "file_bytes" in each else ""
            rows.append([what, f"{int(name.split(', ')[1]):,}", f"{value} {unit}", size])
    return markdown(["what grows", "to", "costs", "teacher's answers"], rows)


def data_pipeline() -> str:
    """The loader beside torchvision's."""
    rows = [
        [size, median(each["kdlab"]["images_per_core_s"]), median(each["torchvision"]["images_per_core_s"]),
         ranged(each["ratio_per_core"], 0)]
        for size, each in read("data_pipeline")["batch_sizes"].items()
    ]  # fmt: skip
    return markdown(["batch", "kdlab", "torchvision", "ratio per core"], rows)


# -- on a GPU: functions have the names of the result's files -------------------------------------------------------


def kd_step_cuda() -> str:
    """A distillation step beside a plain loop."""
    found = read("kd_step_cuda")
    rows = [
        [name, median(rate), ranged(found["ratios"].get(f"{name} / plain")), median(found["utilization"].get(name), 3)]
        for name, rate in found["images_per_s"].items()
    ]
    return markdown([f"a step, {_gpu(found)}", "images/s", "/ plain", "of the peak"], rows)


def epoch_cuda() -> str:
    """Whole epochs beside other frameworks."""
    found = read("epoch_cuda")
    others = [name for name in found["images_per_s"] if not name.startswith("kdlab")]
    rows = [
        [name, median(rate), *(ranged(found["ratios"].get(f"{name} / {other}")) for other in others)]
        for name, rate in found["images_per_s"].items()
    ]
    return markdown([f"whole epochs, {_gpu(found)}", "images/s", *(f"/ {other}" for other in others)], rows)


def overhead_cuda() -> str:
    """Steps of fit beside a bare loop."""
    found = read("overhead_cuda")
    rows = [
        [name, ranged(each["ratio"], 2), median(each["fit_images_per_s"]), median(each["bare_images_per_s"])]
        for name, each in found.items()
        if name not in ("environment", "n")
    ]
    return markdown([f"the Trainer, {_gpu(found)}", "fit / bare loop", "images/s of fit", "of the bare loop"], rows)


def data_pipeline_cuda() -> str:
    """The loader beside torchvision's."""
    found = read("data_pipeline_cuda")
    rows = [
        [size, median(each["kdlab"]["images_per_s"]), median(each["torchvision"]["images_per_s"]),
         ranged(each["ratio"], 0)]
        for size, each in found["batch_sizes"].items()
    ]  # fmt: skip
    theirs = f"torchvision, {found['workers']} workers, images/s"
    return markdown([f"loader, batch, {_gpu(found)}", "kdlab, images/s", theirs, "ratio"], rows)


def ensemble_cuda() -> str:
    """Four networks as one computation."""
    found = read("ensemble_cuda")
    rows = [
        [f"{each['members']}, {each['job']}", str(each["batch"]), f"{each['median_ms']['one_by_one']:.2f}",
         ranged(each["fused_ratio"], 2), ranged(each.get("single_ratio"), 2)]
        for each in found["cases"]
    ]  # fmt: skip
    head = [f"four of, {_gpu(found)}", "batch", "one by one, ms", "fused / one by one", "one network / one by one"]
    return markdown(head, rows)


def _gpu(result: dict[str, Any]) -> str:
    name: str = result["environment"]["gpu"]
    return name


def there(*tables: Callable[[], str]) -> tuple[Callable[[], str], ...]:
    """Return those tables whose result exists."""
    return tuple(table for table in tables if (RESULTS / f"{table.__name__}.json").exists())


ON_A_GPU = (epoch_cuda, kd_step_cuda, overhead_cuda, data_pipeline_cuda, ensemble_cuda)
TABLES: dict[str, tuple[Callable[[], str], ...]] = {
    "docs/performance.md": (kd_step, epoch, overhead, growth, *there(*ON_A_GPU)),
    "README.md": (data_pipeline,),
}


def with_tables(page: str, tables: Iterable[Callable[[], str]]) -> str:
    """Return the text of a page with its tables as the results have them.

    Raises:
        ValueError: if a table has no place in the page.
    """
    for table in tables:
        place = re.compile(rf"(<!-- benchmarks/tables.py: {table.__name__} -->\n\n)(?:\|.*\n)*")
        page, found = place.subn(r"\g<1>" + table(), page)
        if found != 1:
            raise ValueError(f"the page names the table {table.__name__} {found} times")
    return page


if __name__ == "__main__":
    for name, tables in TABLES.items():
        path = RESULTS.parents[1] / name
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
