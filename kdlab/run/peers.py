"""The processes of one job watch each other: when one is lost, all end, with a message and within seconds.

Left to itself, a process whose peer is gone waits in the next collective operation until that times out, after half an
hour or more. Here each process holds a connection to the first one. The kernel closes it when a process dies, whatever
it dies of, and the first process passes the news on.
"""

import hmac
import logging
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from lightning.pytorch import Callback, LightningModule, Trainer

from kdlab.run.checkpoints import ResumePoint
from kdlab.run.stopping import Stopped

log = logging.getLogger(__name__)

LOST = 7  # exit code of the others, where one process is gone without a word
_WELL = 0
_CONNECT_S = 60.0
_GREETING_S = 5.0  # for who has connected to say the token: processes of the job do so at once
_OWN_ERROR_S = 3.0  # for a process to end by its own error, where all have the same one
_NEWS_S = 5.0  # for the news of a peer to arrive, where a collective operation broke off
_TOKEN_BYTES = 16
_NEWS = struct.Struct("!BI")  # exit code, rank


class PeerWatch(Callback):
    """Ends this process when another one of its job is lost or fails; a context manager around all that they share.

    A process that is killed, or whose machine is gone, ends the others with code 7; one that fails, with its own code.
    One that hangs is not noticed. Does nothing in a job of one process.

    Args:
        resume_point: names where the run continues.
        exit_code: what the command line makes of an error.
    """

    def __init__(self, resume_point: ResumePoint, exit_code: Callable[[BaseException], int]) -> None:
        self.resume_point = resume_point
        self.exit_code = exit_code
        self._rank, self._world_size = 0, 1
        self._peers: dict[socket.socket, int] = {}  # to all others in the first process, to that one in the others
        self._lost = threading.Event()
        self._ends = threading.Event()  # this process, on its own
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the processes, once for all that they do together."""
        if trainer.world_size == 1 or self._thread is not None:
            return
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        _retire_observer()
        try:
            with _meeting_point(trainer) as (server, place):
                self._peers = self._accept(server, place[-1]) if server else {_connect(place, self._rank): 0}
        except OSError as error:
            log.warning("the processes cannot watch each other (%s): when one is lost, the others wait for it", error)
        self._thread = threading.Thread(target=self._watch, name="peer-watch", daemon=True)
        self._thread.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others at once: loggers are ended next, and may wait for their servers for minutes."""
        self._end(exception)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell the others how it ended here."""
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._thread is None or self._ends.is_set():
            return
        # a collective operation broke off: it does not know why, but the watch will in an instant, and ends us
        if isinstance(error, RuntimeError) and self._lost.wait(_NEWS_S):
            self._thread.join()
        self._ends.set()
        self._tell(_WELL if error is None or isinstance(error, Stopped) else self.exit_code(error), self._rank)

    # -- the connections ----------------------------------------------------------------------------------

    def _accept(self, server: socket.socket, token: bytes) -> dict[socket.socket, int]:
        """Wait for all others; who does not know the token is a stranger."""
        peers: dict[socket.socket, int] = {}
        while len(peers) < self._world_size - 1:
            try:
                connection, _ = server.accept()
            except OSError:
                for peer in peers:  # nobody shall take the closed connections for a death
                    peer.sendall(_NEWS.pack(_WELL, 0))
                raise
            greeting = _greeting(connection)
            if len(greeting) < _TOKEN_BYTES + _NEWS.size or not hmac.compare_digest(greeting[:_TOKEN_BYTES], token):
                connection.close()
                continue
            peers[_lasting(connection)] = _NEWS.unpack(greeting[_TOKEN_BYTES:])[1]
        return peers

    def _tell(self, code: int, rank: int) -> None:
        """Send news to all peers that are still there."""
        with self._sending:
            for peer in self._peers:
                try:
                    peer.sendall(_NEWS.pack(code, rank))
                except OSError:
                    continue  # it is gone itself

    # -- the watch ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for news until all peers have said that they ended well."""
        with selectors.DefaultSelector() as selector:
            for peer, rank in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    code, rank = _read(key.fileobj, key.data)  # type: ignore[arg-type]
                    if code != _WELL:
                        self._follow(code, rank)
                        return
                    selector.unregister(key.fileobj)

    def _follow(self, code: int, rank: int) -> None:
        """End this process because of another one; in mid-step, because it may wait for that one for ever."""
        self._lost.set()
        self._tell(code, rank)
        if code != LOST and self._ends.wait(_OWN_ERROR_S):
            return
        if self._ends.is_set():
            return
        if self._rank == (1 if rank == 0 else 0):  # one message for all
            what = "is gone: it was killed, or its machine was" if code == LOST else f"failed with exit code {code}"
            log.error("process %d of %d (counted from 0) %s; the others end too%s",
                      rank, self._world_size, what, self._advice())  # fmt: skip
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    def _advice(self) -> str:
        folder = self.resume_point.folder
        if folder is None:
            return ""
        if not folder.last.exists():
            return ". No resume point had been written yet: start the run again"
        return f". Continue with: python -m kdlab fit --config {folder.config} --ckpt_path {folder.last}"


@contextmanager
def _meeting_point(trainer: Trainer) -> Iterator[tuple[socket.socket | None, tuple[str, int, bytes]]]:
    """Agree on where to meet: the socket of the first process (None elsewhere), and its host, port and token.

    Raises:
        OSError: in all processes, if the first one cannot listen.
    """
    server: socket.socket | None = None
    place: tuple[str, int, bytes] | None = None
    problem = ""
    if trainer.is_global_zero:
        one_machine = trainer.num_nodes == 1
        try:
            server = socket.create_server(("127.0.0.1" if one_machine else "", 0), backlog=trainer.world_size)
            server.settimeout(_CONNECT_S)
            host = "127.0.0.1" if one_machine else os.environ["MASTER_ADDR"]
            place = (host, server.getsockname()[1], secrets.token_bytes(_TOKEN_BYTES))
        except OSError as error:  # the others wait for an answer
            problem = str(error)
    place, problem = trainer.strategy.broadcast((place, problem))
    try:
        if place is None:
            raise OSError(problem)
        yield server, place
    finally:
        if server is not None:
            server.close()


def _connect(place: tuple[str, int, bytes], rank: int) -> socket.socket:
    host, port, token = place
    connection = socket.create_connection((host, port), timeout=_CONNECT_S)
    connection.sendall(token + _NEWS.pack(_WELL, rank))
    return _lasting(connection)


def _greeting(connection: socket.socket) -> bytes:
    """What somebody says first; nothing where that takes long or the connection breaks."""
    connection.settimeout(_GREETING_S)
    try:
        return connection.recv(_TOKEN_BYTES + _NEWS.size, socket.MSG_WAITALL)
    except OSError:
        return b""


def _lasting(connection: socket.socket) -> socket.socket:
    """A connection that notices, within half a minute, that the other machine is gone without closing it."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # not everywhere
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


def _read(peer: socket.socket, rank: int) -> tuple[int, int]:
    """The exit code and rank that a peer tells; its own death where the connection ends without a word."""
    try:
        news = peer.recv(_NEWS.size, socket.MSG_WAITALL)
    except OSError:
        news = b""
    code, about = _NEWS.unpack(news) if len(news) == _NEWS.size else (LOST, rank)
    return code, about


def _retire_observer() -> None:
    """Relieve Lightning's observer, which would kill the first process in mid-save when another one stops earlier."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # type: ignore[attr-defined]
