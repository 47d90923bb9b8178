"""The watch between processes: strangers are turned away, and a process alone watches nobody."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdlab.errors import UsageError
from kdlab.messages import exit_code
from kdlab.run.checkpoints import ResumePoint
from kdlab.run.peers import _NEWS, LOST, PeerWatch, _connect, _meeting_point, _read
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


def test_who_says_nothing_or_breaks_off_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdlab.run.peers._GREETING_S", 0.1)
    watch, token = PeerWatch(ResumePoint(), exit_code), bytes(range(16))
    watch._world_size = 2
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        silent, reset, short = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()  # by RST
        short.sendall(token)
        short.close()
        ours = _connect(("127.0.0.1", port, token), 1)
        peers = watch._accept(server, token)
    assert list(peers.values()) == [1]
    for connection in (silent, ours, *peers):
        connection.close()


@pytest.mark.parametrize("is_first", [True, False])
def test_where_the_first_process_cannot_listen_all_learn_it(is_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_server(*_: object, **__: object) -> None:
        raise OSError("no port is free")

    def broadcast(said: object) -> object:
        heard.append(said)
        return None, "no port is free"

    heard: list[object] = []
    monkeypatch.setattr(socket, "create_server", create_server)
    trainer = SimpleNamespace(
        is_global_zero=is_first, num_nodes=1, world_size=2, strategy=SimpleNamespace(broadcast=broadcast)
    )
    with pytest.raises(OSError, match="no port is free"), _meeting_point(trainer):  # type: ignore[arg-type]
        pass
    assert heard == [(None, "no port is free" if is_first else "")]  # else the others would wait


@pytest.fixture
def watched() -> Iterator[tuple[PeerWatch, socket.socket]]:
    """The watch of the second process of two, and the first one's end of its connection."""
    watch = PeerWatch(ResumePoint(), exit_code)
    one, other = socket.socketpair()
    other.settimeout(5)
    watch._peers, watch._rank, watch._world_size, watch._thread = {one: 0}, 1, 2, threading.Thread()
    yield watch, other
    one.close()
    other.close()


def test_the_others_are_told_before_loggers_are_ended_and_once(watched: tuple[PeerWatch, socket.socket]) -> None:
    watch, other = watched
    watch.on_exception(None, None, UsageError("x"))  # type: ignore[arg-type]
    assert _read(other, 1) == (2, 1)
    with pytest.raises(UsageError), watch:
        raise UsageError("x")
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)


def test_what_was_printed_is_not_lost_when_another_process_ends_this_one(
    watched: tuple[PeerWatch, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", leave)
    with (tmp_path / "out.txt").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        print("a line")
        with pytest.raises(SystemExit, match=str(LOST)):
            watched[0]._follow(LOST, 0)
        assert (tmp_path / "out.txt").read_text() == "a line\n"


def ctrl_c() -> SystemExit:
    """What Lightning makes of it."""
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904
    except SystemExit as error:
        return error


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
        (SystemExit(), 0),
        (SystemExit("a text"), 1),
        (ctrl_c(), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_code_of_an_error_is_that_of_the_command_line(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
