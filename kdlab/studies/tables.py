"""The tables of a study in Markdown: what each cell reached, what the comparisons say, how it was tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdlab.studies.canvas import Drawing, LeftOut, Picture
from kdlab.studies.findings import Compared, Findings
from kdlab.studies.formats import mean_and_half_width, scale, short_name, single
from kdlab.studies.plan import cells
from kdlab.studies.reproduction import Reproduction
from kdlab.studies.results import ACCURACY, Results, Row, lookup
from kdlab.studies.search import OF_VALIDATION
from kdlab.studies.selection import Selection
from kdlab.studies.statistics import Summary


def markdown(findings: Findings, pictures: Mapping[str, Picture]) -> str:
    """The whole page.

    Args:
        findings: of the study.
        pictures: file name of each figure beside the page, without suffix -> the figure, or why it was left out.
    """
    results = findings.results
    about = f"{protocol(results)} {SHOWN} Runs, by the names of their folders: results.csv."
    parts = [f"# {_plain(results.plan.name)}", results.plan.question, about]
    parts += [f"**{_plain(warning)}**" for warning in findings.warnings]
    parts += [_cells(findings)]
    if findings.selections:
        parts += ["## Search", *(_selection(findings, one) for one in findings.selections), SELECTED]
    if findings.compared:
        parts += ["## Comparisons", PAIRED, _comparisons(findings.compared)]
    if findings.reproduced:
        parts += ["## Against published numbers", PUBLISHED, _reproduced(findings.reproduced)]
    if results.teachers:
        parts += ["## Teachers", _teachers(results)]
    if findings.failed:
        parts += [
            "## Runs that failed",
            "\n".join(_plain(f"* {one.run.label}: {one.reason}") for one in findings.failed),
        ]
    parts += [
        f"![{_plain(picture.title)}]({name}.svg)" for name, picture in pictures.items() if isinstance(picture, Drawing)
    ]
    left_out = reasons(pictures)
    if left_out:
        lines = [_plain(f"* {', '.join(names)}: {reason}") for reason, names in left_out]
        parts += ["## Figures that were left out", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def reasons(pictures: Mapping[str, Picture]) -> list[tuple[str, list[str]]]:
    """Why figures were left out, each reason with the names of those figures."""
    found: dict[str, list[str]] = {}
    for name, picture in pictures.items():
        if isinstance(picture, LeftOut):
            found.setdefault(picture.reason, []).append(name.replace("_", " "))
    return list(found.items())


SHOWN = "Mean over seeds ± half of the 95% Student-t interval, and sample standard deviation (sd)."
PAIRED = (
    "Differences on equal seeds: mean and 95% Student-t interval, effect size d_z, p of the paired t-test, and p "
    "corrected by Holm over all pairs with the same metric. From a corrected p of 0.05 up the two are not "
    "distinguishable."
)

SELECTED = (
    "No test image took part in a selection, and a searched variant stands in comparisons with its best trial. The "
    "runs that won are the runs that are shown, so other seeds may do slightly worse: give the values that were found "
    "to a variant of a study with new seeds before you claim them."
)
PUBLISHED = (
    "Test accuracy in per cent. Published numbers are copied from their sources and were not measured here. Ours: mean "
    "over the seeds ± half of the 95% Student-t interval; the difference is ours minus theirs, with the same interval. "
    "The two agree if our interval holds the published number. In band, from 3 runs on: our mean is within 0.5 points "
    "of it, or within two standard errors where these are more. The best epoch by the test images is at least as good "
    "as the last epoch of the same runs: where only theirs is chosen so, ours is expected to be lower."
)


def number(summary: Summary, metric: str) -> str:
    """Mean and half width of the interval: ``97.12 ± 0.31``."""
    mean, half_width = mean_and_half_width(summary, metric)
    return mean if half_width is None else f"{mean} ± {half_width}"


def trials(selection: Selection) -> str:
    """What the best trial of a search was selected by, and out of how many."""
    search = selection.search
    where = ", on validation images" if search.maximize.startswith(OF_VALIDATION) else ""
    lost = len(search.suggested) - selection.finished
    but = f" ({lost} more failed or are not finished)" if lost else ""
    by = f"{short_name(search.maximize)} (mean over the seeds{where})"
    return f"selected by {by} out of {selection.finished} trials{but}"


def protocol(results: Results) -> str:
    """How the runs were trained and tested, and what their intervals say nothing of."""
    found = results.protocol
    held = f"{100 * found['val_fraction']:.3g}% of the training images held out" if found["val_fraction"] else (
        "no validation images, nothing selected"
    )  # fmt: skip
    told = [f"Protocol: {found['name']}, {found['selection']} ({held}), {found['n_tested']} test images."]
    told.append("All seeds share the split of the data: intervals speak of other seeds, not of other test images.")
    if any(row.run.needs for row in results.rows) or any(map(_share_teacher, results.cells.values())):
        told.append(
            "Where a cell learns from a trained teacher, all its seeds share that one: intervals hold for it, not for "
            "one trained anew."
        )
    return " ".join(told)


def _share_teacher(rows: Sequence[Row]) -> bool:
    """Whether runs learnt from one and the same teacher, not each from one of its own."""
    weights = {lookup(row.result, "teacher.weights_sha256") for row in rows}
    return len(rows) > 1 and len(weights) == 1 and None not in weights


def _cells(findings: Findings) -> str:
    """Every planned cell, those too of which no run is finished."""
    header, metrics = ["cell", "n"], findings.results.plan.metrics
    for metric in metrics:
        header += [f"{short_name(metric)}{scale(metric)[1]}", "sd"]
    lines = [_line(header), _line(["---", *["---:"] * (2 * len(metrics) + 1)])]
    for cell in cells(findings.results.plan):
        values = []
        for metric in metrics:
            summary = findings.cells[metric].get(cell)
            sd = None if summary is None else summary.sd
            nothing = "n/a" if cell in findings.results.cells else "no run"
            values += [nothing if summary is None else number(summary, metric),
                       "" if sd is None else f"{scale(metric)[0] * sd:.3g}"]  # fmt: skip
        lines.append(_line([cell, str(len(findings.results.cells.get(cell, []))), *values]))
    return "\n".join(lines)


def _selection(findings: Findings, selection: Selection) -> str:
    if selection.best is None:
        return _plain(f"No trial of {selection.search.variant} has finished.")
    reached = [
        f"{short_name(metric)} {number(summaries[selection.best], metric)}{scale(metric)[1]}"
        for metric, summaries in findings.cells.items() if selection.best in summaries
    ]  # fmt: skip
    best = f"Best of {selection.search.variant}: **{selection.best}**"
    return _plain(f"{best}, {trials(selection)}: {', '.join(reached)}.")


def _comparisons(compared: Sequence[Compared]) -> str:
    lines = [_line(["metric", "cell", "against", "n", "difference", "d_z", "p", "p (Holm)", "verdict"])]
    lines.append(_line(["---"] * 3 + ["---:"] * 5 + ["---"]))
    for pair in compared:
        result, (_, unit) = pair.result, scale(pair.metric)
        points = " points" if unit else ""
        difference = "" if result.difference is None else number(result.difference, pair.metric) + points
        effect = "" if result.effect_size is None else f"{result.effect_size:.2f}"
        p_values = ["" if p is None else p_value(p) for p in (result.p, result.p_holm)]
        lines.append(_line([short_name(pair.metric), pair.cell, pair.against, str(len(result.seeds)), difference,
                            effect, *p_values, result.verdict]))  # fmt: skip
    return "\n".join(lines)


def _reproduced(reproduced: Sequence[Reproduction]) -> str:
    lines = [_line(["cell", "published", "ours", "n", "difference", "verdict", "in band", "their protocol", "source"])]
    lines.append(_line(["---", *["---:"] * 4, *["---"] * 4]))
    for one in reproduced:
        numbers = ["", "0", ""]
        if one.ours is not None and one.difference is not None:
            numbers = [number(one.ours, ACCURACY), str(one.ours.n), number(one.difference, ACCURACY) + " points"]
        verdict = f"{one.verdict} ({one.note})" if one.note else one.verdict
        published = f"{100 * one.published.accuracy:.2f}"
        band = in_band(one)
        lines.append(
            _line([one.cell, published, *numbers, verdict, band, one.published.protocol, one.published.source])
        )
    return "\n".join(lines)


def in_band(one: Reproduction) -> str:
    """Whether our mean lies in the band around the published number; empty for too few runs."""
    return "" if one.within_band is None else "yes" if one.within_band else "no"


def _teachers(results: Results) -> str:
    metrics = results.plan.metrics
    lines = [_line(["teacher", "run", *(f"{short_name(metric)}{scale(metric)[1]}" for metric in metrics)])]
    lines.append(_line(["---", "---", *["---:"] * len(metrics)]))
    for row in results.teachers:
        one = [single(row.metrics[metric], metric) if metric in row.metrics else "" for metric in metrics]
        lines.append(_line([row.run.variant, row.run.id, *one]))
    return "\n".join(lines)


def p_value(p: float) -> str:
    """A p-value as it is shown."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _plain(text: str) -> str:
    """A text, whatever the names in it, in one line and without HTML."""
    return " ".join(text.splitlines()).replace("<", chr(92) + "<")
