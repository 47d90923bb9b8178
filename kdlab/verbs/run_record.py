"""What is found out about a run after its end, added to its result.json and sent to its loggers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger

from kdlab.parser import KDLabParser
from kdlab.run.guard import guard
from kdlab.run.metrics_csv import MetricsCSV
from kdlab.run.summary import read_result, write_result
from kdlab.run.tracker import Tracker, numbers
from kdlab.verbs.loaded import LoadedRun

log = logging.getLogger(__name__)


def add_to_run(run: LoadedRun, section: tuple[str, ...], figures: Mapping[str, Any]) -> None:
    """Put `figures` into the run's result, and their numbers into its loggers.

    What describes a checkpoint other than the one of the result is left out of both.

    Args:
        run: that they describe.
        section: of result.json, from the outside in, such as ``("export", "onnx")``; what it held is replaced. The
            loggers' keys are the path to each number: ``export/onnx/size_bytes``.
        figures: JSON values.
    """
    if not run.is_final:
        return
    assert run.folder is not None
    result = read_result(run.folder.result)
    if result is None:
        log.warning("%s is not there or damaged, so the main figures are not added to it", run.folder.result)
        return
    within = result
    for name in section[:-1]:
        within = within.setdefault(name, {})
    within[section[-1]] = dict(figures)
    write_result(result, run.folder.result)
    metrics = numbers(figures, "/".join(section))
    csv = MetricsCSV()
    csv.open(run.folder.metrics, step=sys.maxsize)
    config = yaml.safe_load(run.folder.config.read_text(encoding="utf-8"))
    loggers = [csv, *own_loggers(config)]
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.begin(run.folder, None)
        logger.log_metrics(metrics, step=csv.last_step)
        logger.save()
        logger.finalize("success")
        if isinstance(logger, Tracker):
            logger.close()


def own_loggers(config: Mapping[str, Any]) -> list[Logger]:
    """Build the loggers that a run's config names beside kdlab's own; one that cannot be built is said and left out."""
    given = (config.get("trainer") or {}).get("logger")
    loggers: list[Logger] = []
    for logger in given if isinstance(given, list) else [given]:
        if not isinstance(logger, Mapping):  # false, true or null: none of its own
            continue
        parser = KDLabParser(exit_on_error=False)
        parser.add_argument("--logger", type=Logger)
        try:
            loggers.append(guard(parser.instantiate_classes(parser.parse_object({"logger": dict(logger)})).logger))
        except Exception as error:  # a tracker's package raises what it likes, and result.json has the figures
            log.warning("%s gets no figures: %s", logger.get("class_path"), str(error).partition("\n")[0])
    return loggers
