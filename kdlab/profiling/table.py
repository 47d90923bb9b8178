"""Costs as they are shown: one row of cells per network and variant, and notes on what the cells do not say.

Everything is read from ``profile``, section -> what the profiler's ``as_dict`` returned, which is what ``result.json``
has under that name: the table at a run's end and that of `profile` are the same code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdlab.profiling.timing import SAMPLES_FOR_P99

Row = dict[str, str | float | None]
Profile = Mapping[str, Mapping[str, Any]]

NOT_MEASURED = "n/a"
MIB = 2**20
WIDE_SPREAD = 0.5  # of the median: where more, the machine was busy with something else


def shown_rows(profiles: Mapping[str, Profile]) -> list[dict[str, str]]:
    """Return one row per network and variant, column -> what is shown, all with the same columns.

    What does not depend on the variant stands in the first row of each network.
    """
    runs = [run for profile in profiles.values() for run in profile.get("latency", {}).get("runs", ())]
    sizes = sorted({1, *(run["batch_size"] for run in runs)})
    rows = [row for name, profile in profiles.items() for row in _rows(name, profile, sizes)]
    columns = max(map(list, rows), key=len, default=[])
    return [{column: row.get(column, NOT_MEASURED) for column in columns} for row in rows]


def _rows(name: str, profile: Profile, sizes: Sequence[int]) -> list[dict[str, str]]:
    runs = {(run["variant"], run["batch_size"]): run for run in profile.get("latency", {}).get("runs", ())}
    constant, energy = _constant_cells(profile), {"mJ/image": _cell_of(profile, "energy", "energy_mj_per_image")}
    rows = []
    for variant in dict.fromkeys(variant for variant, _ in runs) or ["eager"]:
        row = {"network": name if variant == "eager" else f"{name} ({variant})"} | constant
        for size in sizes:
            row |= _latency_cells(runs.get((variant, size), {}), size)
        rows.append(row | energy)
        constant, energy = dict.fromkeys(constant, ""), dict.fromkeys(energy, "")
    return rows


def _constant_cells(profile: Profile) -> dict[str, str]:
    macs, latency = profile.get("macs", {}), profile.get("latency", {})
    shape = macs.get("image_shape") or latency.get("image_shape")
    cells = {
        "image": "x".join(map(str, shape)) if shape else NOT_MEASURED,
        "parameters": _cell_of(profile, "size", "parameters"),
        "size MiB": _cell_of(profile, "size", "size_bytes", MIB),
        "MACs M": _cell_of(profile, "macs", "macs", 1e6),
        "MACs counters": _counters(macs) if "macs_agree" in macs else NOT_MEASURED,
    }
    if macs.get("macs_thop_style") is not None:
        cells["MACs M thop style"] = _cell_of(profile, "macs", "macs_thop_style", 1e6)
    return cells


def _counters(macs: Mapping[str, Any]) -> str:
    """Whether the two counters of multiply-adds can be believed."""
    if macs["uncounted_ops"] or macs["uncounted_parameters"]:
        return "too low"
    return "agree" if macs["macs_agree"] else f"differ {100 * macs['macs_difference']:.0f}%"


def _latency_cells(run: Mapping[str, Any], batch_size: int) -> dict[str, str]:
    cells = {f"ms {name} at {batch_size}": _number(run.get(f"latency_ms_{name}")) for name in ("p50", "p90", "p99")}
    cells[f"ms spread at {batch_size}"] = _number(run.get("latency_ms_spread"))
    if batch_size > 1:
        cells[f"images/s at {batch_size}"] = _number(run.get("throughput_images_per_s"))
    return cells


def _cell_of(profile: Profile, section: str, figure: str, unit: float | None = None) -> str:
    value = profile.get(section, {}).get(figure)
    if value is None or unit is None:
        return _number(value)
    return f"{value / unit:,.3f}" if value >= unit else f"{value / unit:.3g}"


def _number(value: float | None) -> str:
    """Whole numbers in full, others with three digits."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.3g}"


def notes_on(profile: Profile) -> list[str]:
    """Return what a reader must know of one network's figures: what is missing and why, what not to trust."""
    macs, latency, energy = (profile.get(section, {}) for section in ("macs", "latency", "energy"))
    missing = [
        f"{section}: not measured ({found['reason']})" for section, found in profile.items() if "reason" in found
    ]
    found = [f"{doubt}." for doubt in macs.get("macs_doubts", ())]
    found += [f"{variant}: not measured ({why})" for variant, why in latency.get("not_measured", {}).items()]
    runs = latency.get("runs", ())
    if unstable := _which(run for run in runs if not run["warmup_stable"]):
        found.append(f"the warm-up had not settled ({unstable}); give it more seconds.")
    if wide := _which(run for run in runs if run["latency_ms_spread"] > WIDE_SPREAD * run["latency_ms_p50"]):
        found.append(f"the machine was busy: the spread is more than half of the median ({wide}); measure again.")
    if few := _which(run for run in runs if run["latency_ms_p99"] is None):
        found.append(f"too few calls for p99, which needs {SAMPLES_FOR_P99} ({few}); give it more seconds.")
    found += [f"energy: {note}." for note in energy.get("notes", ())]
    if energy.get("net_reason"):
        found.append(f"net energy: not measured ({energy['net_reason']})")
    return found + missing


def _which(runs: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{run['variant']} batch {run['batch_size']}" for run in runs)


# -- all figures ------------------------------------------------------------------------------------------------


def table_rows(metrics: Mapping[str, Mapping[str, float]], more: Mapping[str, Row] | None = None) -> list[Row]:
    """Return one row per network: ``network``, then its figures; None where a network has none.

    Args:
        metrics: name of the network -> what its profilers' ``as_metrics`` returned, joined; the prefix ``profile/``
            is dropped.
        more: name of the network -> what stands behind its figures, such as the device.
    """
    figures = {name: {key.removeprefix("profile/"): value for key, value in row.items()}
               for name, row in metrics.items()}  # fmt: skip
    columns = list(dict.fromkeys(key for row in figures.values() for key in row))
    return [
        {"network": name, **{column: row.get(column) for column in columns}, **(more or {}).get(name, {})}
        for name, row in figures.items()
    ]


def to_markdown(rows: Sequence[Mapping[str, str]], notes: Sequence[str] = ()) -> str:
    """Return a Markdown table, and `notes` below it, such as why energy is missing."""
    columns = list(rows[0])
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[row[column].replace("|", "\\|") for column in columns] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *notes]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Return CSV with all digits; what was not measured is n/a."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: NOT_MEASURED if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()
