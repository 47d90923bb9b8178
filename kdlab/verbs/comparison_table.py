"""The costs of several networks as one table: for a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdlab.profiling import NotMeasured
from kdlab.profiling.isolation import describe_device, device_name
from kdlab.profiling.table import Row, notes_on, shown_rows, table_rows, to_csv, to_markdown
from kdlab.verbs.comparison import Costs

TABLE_WIDTH = 120  # where the output is a file


def rows(all_costs: Sequence[Costs]) -> list[dict[str, str]]:
    """Return one row per network and variant, column -> what is shown."""
    return shown_rows({costs.target.name: costs.profile() for costs in all_costs})


def notes(all_costs: Sequence[Costs], device: torch.device) -> list[str]:
    """Return what a reader of the table must know, one line each; what concerns all networks is said once."""
    lines = [
        f"Measured on {describe_device(device)}, torch {torch.__version__}; MACs are multiply-adds of one image; "
        "ms: wall clock per batch; weights as they are stored, no autocast but in its own variant.",
        "spread: two profiles of one network, on a machine in the same state, differ by less. The networks took turns; "
        "other work on the machine slows all of them.",
    ]
    concerned: dict[str, list[str]] = {}
    for costs in all_costs:
        for note in notes_on(costs.profile()):
            concerned.setdefault(note, []).append(costs.target.name)
    everyone = len(all_costs)
    return lines + [
        note if len(who) == everyone > 1 else f"{', '.join(who)}: {note}" for note, who in concerned.items()
    ]


# -- formats ----------------------------------------------------------------------------------------------------


def as_table(all_costs: Sequence[Costs], device: torch.device, to_screen: bool) -> str:
    """Return the table, one column per network, with its notes.

    Args:
        all_costs: the networks.
        device: that they were measured on.
        to_screen: whether to fit it to the terminal, if there is one; in a file nothing is set in bold.
    """
    shown = rows(all_costs)
    table = Table()  # a network has more figures than a terminal has room for columns
    table.add_column("", no_wrap=True)
    for row in shown:
        table.add_column(escape(row["network"]), justify="right", overflow="fold")
    for figure in list(shown[0])[1:]:
        table.add_row(figure, *(row[figure] for row in shown))
    console = Console()
    if not (to_screen and console.is_terminal):
        console = Console(file=io.StringIO(), width=TABLE_WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get() + "".join(f"{note}\n" for note in notes(all_costs, device))


def as_markdown(all_costs: Sequence[Costs], device: torch.device) -> str:
    """Return a Markdown table with its notes."""
    return to_markdown(rows(all_costs), notes(all_costs, device))


def as_csv(all_costs: Sequence[Costs], device: torch.device) -> str:
    """Return CSV with every figure, all digits, under its stable name; device, threads and missing energy beside it."""
    where: Row = {"device": device_name(device), "threads": torch.get_num_threads()}
    more: dict[str, Row] = {}
    for costs in all_costs:
        energy = costs.energy.result
        more[costs.target.name] = where | {"energy": energy.reason if isinstance(energy, NotMeasured) else "measured"}
    return to_csv(table_rows({costs.target.name: costs.metrics() for costs in all_costs}, more))


def as_json(all_costs: Sequence[Costs], device: torch.device) -> str:
    """Return JSON with everything that is known of each network, and the reasons for what is not."""
    content = {
        "format": 1,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "networks": [costs.as_dict() for costs in all_costs],
        "notes": notes(all_costs, device),
    }
    return json.dumps(content, indent=1) + "\n"
