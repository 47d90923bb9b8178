"""The watch between processes: strangers are turned away, and a process alone watches nobody."""

import socket
import threading
from types import SimpleNamespace

import pytest

from kdlab.errors import UsageError
from kdlab.messages import exit_code
from kdlab.run.checkpoints import ResumePoint
from kdlab.run.peers import _NEWS, LOST, PeerWatch, _connect, _read
from kdlab.run.stopping import Stopped


def test_a_process_alone_watches_nobody() -> None:
    watch, threads = PeerWatch(ResumePoint(), exit_code), threading.active_count()
    with watch:
        watch.setup(SimpleNamespace(world_size=1), None, "fit")  # type: ignore[arg-type]
        assert threading.active_count() == threads
    with pytest.raises(UsageError, match="as it was"), watch:
        raise UsageError("as it was")


def test_who_does_not_know_the_token_is_turned_away() -> None:
    watch, token = PeerWatch(ResumePoint(), exit_code), bytes(range(16))
    watch._world_size = 3
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        callers = [(bytes(16), 9), (token, 2), (b"\xff" * 16, 1), (token, 1)]
        connections = [_connect(("127.0.0.1", port, word), rank) for word, rank in callers]
        peers = watch._accept(server, token)
    assert sorted(peers.values()) == [1, 2]
    for connection in (*connections, *peers):
        connection.close()


def test_a_connection_that_ends_without_a_word_is_a_death() -> None:
    one, other = socket.socketpair()
    other.sendall(_NEWS.pack(5, 3))
    assert _read(one, 1) == (5, 3)
    other.close()
    assert _read(one, 1) == (LOST, 1)
    one.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (RuntimeError("x"), 1),
        (SystemExit(143), 143),
        (Stopped(143), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_others_end_with_the_code_of_the_error(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
