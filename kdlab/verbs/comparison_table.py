"""The costs of several networks as one table: for a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from rich.console import Console
from rich.table import Table

from kdlab.profiling import NotMeasured
from kdlab.profiling.isolation import describe_device
from kdlab.profiling.latency import BatchLatency, LatencyProfile
from kdlab.profiling.macs import MACsProfile
from kdlab.profiling.size import ModelSizeProfile
from kdlab.profiling.table import NOT_MEASURED, Row, table_rows, to_csv, to_markdown
from kdlab.verbs.comparison import Costs

MIB = 2**20
TABLE_WIDTH = 120  # where the output is a file


def rows(all_costs: Iterable[Costs], batch_size: int) -> list[dict[str, str]]:
    """Return one row per network and variant, column -> what is shown."""
    found = []
    for costs in all_costs:
        latency = costs.profilers[2].result
        runs = latency.runs if isinstance(latency, LatencyProfile) else ()
        for number, variant in enumerate(dict.fromkeys(run.variant for run in runs) or ["eager"]):
            own = {run.batch_size: run for run in runs if run.variant == variant}
            name = costs.target.name if variant == "eager" else f"{costs.target.name} ({variant})"
            constant = _constant_cells(costs)
            found.append(
                {"network": name, "image": "x".join(map(str, costs.target.image_shape))}
                | (constant if number == 0 else dict.fromkeys(constant, ""))
                | _latency_cells(own.get(1), 1)
                | (_latency_cells(own.get(batch_size), batch_size) if batch_size != 1 else {})
                | ({"mJ/image": _energy(costs)} if number == 0 else {"mJ/image": ""})
            )
    return found


def _constant_cells(costs: Costs) -> dict[str, str]:
    macs, size = costs.profilers[0].result, costs.profilers[1].result
    return {
        "parameters": f"{size.parameters:,}" if isinstance(size, ModelSizeProfile) else NOT_MEASURED,
        "MiB": f"{size.size_bytes / MIB:.3f}" if isinstance(size, ModelSizeProfile) else NOT_MEASURED,
        "MACs M": f"{macs.macs / 1e6:,.3f}" if isinstance(macs, MACsProfile) else NOT_MEASURED,
        "MACs counters": _counters(macs) if isinstance(macs, MACsProfile) else NOT_MEASURED,
    }


def _counters(macs: MACsProfile) -> str:
    """Whether the two counters of multiply-adds can be believed."""
    if macs.uncounted_ops:
        return "too low"
    return "agree" if macs.macs_agree else f"differ {100 * macs.macs_difference:.0f}%"


def _latency_cells(run: BatchLatency | None, batch_size: int) -> dict[str, str]:
    def ms(name: str) -> str:
        value = None if run is None else getattr(run, f"latency_ms_{name}")
        return NOT_MEASURED if value is None else f"{value:.3g}"

    at = f"at {batch_size}"
    figures = {f"ms {name} {at}": ms(name) for name in ("p50", "p90", "p99", "spread")}
    if batch_size == 1:
        return figures
    return figures | {f"images/s {at}": NOT_MEASURED if run is None else f"{run.throughput_images_per_s:,.0f}"}


def _energy(costs: Costs) -> str:
    energy = costs.profilers[3].as_metrics().get("profile/energy_mj_per_image")
    return NOT_MEASURED if energy is None else f"{energy:.3g}"


def notes(all_costs: Sequence[Costs], device: torch.device) -> list[str]:
    """Return what a reader of the table must know, one line each."""
    lines = [
        f"Measured on {describe_device(device)}, torch {torch.__version__}; MACs are multiply-adds of one image; "
        "ms: wall clock per batch.",
        "spread: two profiles of one network, on a machine in the same state, differ by less. The networks took turns; "
        "other work on the machine slows all of them.",
    ]
    for costs in all_costs:
        name, (macs, _, latency, _) = costs.target.name, (profiler.result for profiler in costs.profilers)
        if isinstance(macs, MACsProfile) and macs.uncounted_ops:
            ops = ", ".join(f"{op} (x{n})" for op, n in macs.uncounted_ops.items())
            lines.append(f"{name}: nobody counts {ops}, which may multiply and add; MACs is too low.")
        if isinstance(macs, MACsProfile) and not macs.macs_agree:
            lines.append(f"{name}: fvcore counts {macs.macs:,} MACs, torch {macs.macs_torch:,}; do not trust either.")
        if isinstance(latency, LatencyProfile):
            lines += [f"{name}: {variant}: not measured ({why})" for variant, why in latency.not_measured.items()]
            unstable = [f"{run.variant} batch {run.batch_size}" for run in latency.runs if not run.warmup_stable]
            if unstable:
                lines.append(f"{name}: the warm-up had not settled ({', '.join(unstable)}); give it more --seconds.")
    return lines + _missing(all_costs)


def _missing(all_costs: Sequence[Costs]) -> list[str]:
    """Each reason why something was not measured, with the networks it concerns."""
    concerned: dict[str, list[str]] = {}
    for costs in all_costs:
        for profiler in costs.profilers:
            if isinstance(profiler.result, NotMeasured):
                concerned.setdefault(f"{profiler.section}: {profiler.result}", []).append(costs.target.name)
    everyone = len(all_costs)
    return [line if len(who) == everyone else f"{', '.join(who)}: {line}" for line, who in concerned.items()]


# -- formats ----------------------------------------------------------------------------------------------------


def as_table(all_costs: Sequence[Costs], batch_size: int, device: torch.device) -> str:
    """Return the table for a terminal, one column per network, with its notes."""
    shown = rows(all_costs, batch_size)
    table = Table()  # a network has more figures than a terminal has room for columns
    table.add_column("", no_wrap=True)
    for row in shown:
        table.add_column(row["network"], justify="right", overflow="fold")
    for figure in list(shown[0])[1:]:
        table.add_row(figure, *(row[figure] for row in shown))
    console = Console()
    console = console if console.is_terminal else Console(width=TABLE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get() + "".join(f"{note}\n" for note in notes(all_costs, device))


def as_markdown(all_costs: Sequence[Costs], batch_size: int, device: torch.device) -> str:
    """Return a Markdown table with its notes."""
    shown: list[Row] = [dict(row) for row in rows(all_costs, batch_size)]
    return to_markdown(shown, notes(all_costs, device))


def as_csv(all_costs: Sequence[Costs]) -> str:
    """Return CSV with every figure, all digits, under its stable name."""
    metrics: Mapping[str, Mapping[str, float]] = {costs.target.name: costs.metrics() for costs in all_costs}
    return to_csv(table_rows(metrics))


def as_json(all_costs: Sequence[Costs], device: torch.device) -> str:
    """Return JSON with everything that is known of each network, and the reasons for what is not."""
    content = {
        "format": 1,
        "device": describe_device(device),
        "torch": torch.__version__,
        "networks": [costs.as_dict() for costs in all_costs],
        "notes": notes(all_costs, device),
    }
    return json.dumps(content, indent=1) + "\n"
