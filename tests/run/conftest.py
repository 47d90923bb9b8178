"""Servers on this machine that do not do what W&B's does, and an environment without the developer's own account."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kdlab.run.folder import RunFolder

KEY = "0123456789abcdef0123456789abcdef01234567"  # of nobody
CONFIG = {
    "seed_everything": 3,
    "experiment": "digits",
    "name": "run",
    "model": {"class_path": "kdlab.methods.IndependentStudent", "init_args": {"student": {"class_path": "a.Small"}}},
    "data": {"class_path": "kdlab.data.Digits", "init_args": {}},
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a run that has just started."""
    folder = RunFolder(tmp_path / "digits" / "run")
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture
def closed_port() -> str:
    """The address of a server that is not there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[int], int | None]], str]]:
    """`server(status)`: the address of a server that answers its n-th request with `status(n)`.

    200 is what W&B says of a key that it knows; None is no answer until the test ends.
    """
    ended = threading.Event()
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: Callable[[int], int | None]) -> str:
        requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                requests.append(self.path)
                code = status(len(requests))
                if code is None:
                    ended.wait(60)
                    return
                body = json.dumps({"data": {"viewer": {"id": "somebody"}}}).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 (its name in http.server)

            def log_message(self, *_: object) -> None:
                pass

        found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        found.daemon_threads = True
        threading.Thread(target=found.serve_forever, daemon=True).start()
        servers.append(found)
        return f"http://127.0.0.1:{found.server_port}"

    yield start
    ended.set()
    for found in servers:
        found.shutdown()
        found.server_close()
