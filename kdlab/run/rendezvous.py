"""Meeting the other processes of a job: a wait in which Python handles no signals."""

import logging
import os
import signal
import threading
from collections.abc import Callable

from lightning.pytorch.strategies import Strategy

from kdlab.run.signals import handling

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def wait_openly(strategy: Strategy, world_size: int) -> None:
    """Let the wait for processes that a launcher starts be ended by a signal, and say for how many it is.

    Where kdlab starts them itself they are there at once.
    """
    environment = getattr(strategy, "cluster_environment", None)
    if environment is None or world_size == 1 or not environment.creates_processes_externally:
        return
    setattr(strategy, "setup_environment", _open(strategy.setup_environment, world_size))  # noqa: B010 (mypy)


def _open(meet: Callable[[], None], world_size: int) -> Callable[[], None]:
    def setup_environment() -> None:
        at = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '')}"
        said = threading.Timer(PATIENCE_S, log.warning, ("waiting for all %d processes at %s", world_size, at))
        said.daemon = True
        said.start()
        try:
            if threading.current_thread() is threading.main_thread():
                with handling(SIGNALS, signal.SIG_DFL):  # nothing has been written, and nobody else is there to be told
                    meet()
            else:
                meet()
        finally:
            said.cancel()

    return setup_environment
