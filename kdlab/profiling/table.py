"""One comparison table of several networks, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

Row = dict[str, str | float | None]

NOT_MEASURED = "n/a"


def table_rows(metrics: Mapping[str, Mapping[str, float]], columns: Sequence[str] | None = None) -> list[Row]:
    """Return one row per network: ``network``, then its figures; None where a network has none.

    Args:
        metrics: name of the network -> what its profilers' ``as_metrics`` returned, joined; the prefix ``profile/``
            is dropped.
        columns: figures to show, in order; by default all that any network has.
    """
    figures = {name: {key.removeprefix("profile/"): value for key, value in row.items()}
               for name, row in metrics.items()}  # fmt: skip
    found = list(dict.fromkeys(key for row in figures.values() for key in row))
    shown = found if columns is None else [column for column in columns if column in found]
    return [{"network": name, **{column: row.get(column) for column in shown}} for name, row in figures.items()]


def to_markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """Return a Markdown table, four significant digits, and `notes` below it, such as why energy is missing."""
    columns = list(rows[0]) if rows else ["network"]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *notes]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Return CSV with all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["network"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: NOT_MEASURED if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Return a JSON list of objects with all digits; what was not measured is null."""
    return json.dumps(list(rows), indent=1) + "\n"


def _cell(value: str | float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"
