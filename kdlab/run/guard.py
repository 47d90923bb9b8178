"""Logging never decides the fate of a training."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

from kdlab.errors import one_line
from kdlab.run.tracker import Tracker

log = logging.getLogger(__name__)

CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")
CALLS_OF_TRACKERS = ("begin", "conclude", "close")
LAST = ("finalize", "close")  # tried after a failure too: what is open must not stay open for the next run


def guard(logger: Logger) -> Logger:
    """Let `logger` fail: a full disk or a lost server is said once, the logger is left out, and training goes on."""
    failed: list[str] = []

    def guarded(name: str) -> Callable[..., Any]:
        call = getattr(logger, name)

        @functools.wraps(call)
        def tried(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if failed and name not in LAST:
                return None
            try:
                return call(*args, **kwargs)
            except Exception as error:
                if not failed:
                    why = one_line(error)
                    log.warning("%s cannot log (%s); training goes on without it", type(logger).__name__, why)
                failed.append(name)
                return None

        return tried

    for name in (*CALLS, *(CALLS_OF_TRACKERS if isinstance(logger, Tracker) else ())):
        setattr(logger, name, guarded(name))
    return logger
