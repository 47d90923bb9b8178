"""The W&B workspace of a project, as code: what a team wants to see first. Nothing else needs wandb-workspaces."""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from kdlab.run.wandb_logger import STEP

COSTS = {
    "student/parameters": "parameters",
    "profile/macs": "multiply-adds per image",
    "profile/latency_ms_p50": "ms p50 at batch 1",
}


def make_workspace(entity: str, project: str) -> ws.Workspace:
    """Return the workspace: accuracy by method, cost against accuracy, losses by term.

    Args:
        entity: user or team; empty where it is not pushed.
        project: its name.
    """
    sections = [
        ws.Section(name="Accuracy by method", panels=_accuracy(), is_open=True),
        ws.Section(name="Cost against accuracy", panels=_costs(), is_open=True),
        ws.Section(name="Losses by term", panels=_losses(), is_open=True),
        ws.Section(name="Tables and diagrams", panels=_media(), is_open=False),
    ]
    return ws.Workspace(entity=entity, project=project, name=f"{project}: methods, costs, losses", sections=sections)


def specification(workspace: ws.Workspace) -> dict[str, Any]:
    """Return the workspace as JSON values, each time the same: panels are numbered, not named at random."""
    spec: dict[str, Any] = workspace._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    panels = [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]
    for number, panel in enumerate(panels):
        panel["__id__"] = f"panel-{number}"
    return {"entity": workspace.entity, "project": workspace.project, "name": workspace.name, "spec": spec}


def _accuracy() -> list[Any]:
    by_method = {"groupby": wr.Config("method"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return [
        wr.BarPlot(
            title="test accuracy of the student, mean and std by method", metrics=["test/accuracy"], **by_method
        ),
        wr.BarPlot(title="agreement with the teacher by method", metrics=["test/agreement"], **by_method),
        wr.LinePlot(title="validation accuracy by method", x=STEP, y=["val/accuracy"], **by_method),
    ]


def _costs() -> list[Any]:
    return [
        wr.ScatterPlot(
            title=f"test accuracy against {text}",
            x=wr.SummaryMetric(name),
            y=wr.SummaryMetric("test/accuracy"),
            log_x=True,
        )
        for name, text in COSTS.items()
    ]


def _losses() -> list[Any]:
    """Which terms there are is up to the method, so they are found by their ending."""
    return [
        wr.LinePlot(
            title="every weighted term of the loss, mean of each epoch", x=STEP, metric_regex="^train/.+_loss$"
        ),
        wr.LinePlot(title="the sum that is minimised", x=STEP, y=["train/loss"]),
        wr.LinePlot(title="negative log-likelihood on validation images", x=STEP, y=["val/nll"]),
    ]


def _media() -> list[Any]:
    diagrams = wr.MediaBrowser(media_keys=["test/reliability_student", "test/reliability_teacher"])
    tables = ("test/examples", "test/per_class")
    return [diagrams, *(wr.WeavePanelSummaryTable(table_name=name) for name in tables)]
