"""Logging never decides the fate of a training."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

from kdlab.run.tracker import Tracker

log = logging.getLogger(__name__)

CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")
CALLS_OF_TRACKERS = ("begin", "conclude", "close")


def guard(logger: Logger) -> Logger:
    """Let `logger` fail once: a full disk or a lost server is said, the logger is left out, and training goes on."""
    failed: list[str] = []

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def tried(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if failed:
                return None
            try:
                return call(*args, **kwargs)
            except Exception as error:
                failed.append(call.__name__)
                log.warning("%s cannot log (%s); training goes on without it", type(logger).__name__, error)
                return None

        return tried

    for name in (*CALLS, *(CALLS_OF_TRACKERS if isinstance(logger, Tracker) else ())):
        setattr(logger, name, guarded(getattr(logger, name)))
    return logger
