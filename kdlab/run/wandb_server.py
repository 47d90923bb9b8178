"""The W&B server: where it is, and whether it takes a run, found out in seconds where wandb waits for minutes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from kdlab.errors import one_line

ADDRESS = "WANDB_BASE_URL"
SENT = ".synced"  # what wandb puts behind the name of a file that `wandb sync` has sent
ASK_S = 3.0  # for the whole answer: a name that is not resolved, or a server that hangs, is not waited for


def is_sent(file: Path) -> bool:
    """Whether the server has all of a file that wandb wrote."""
    return file.with_name(file.name + SENT).exists()


def mark_sent(folder: Path) -> None:
    """Remember that the server has all that wandb wrote into `folder`."""
    for file in folder.glob("*.wandb"):
        file.with_name(file.name + SENT).touch()


def settle() -> dict[str, str]:
    """Let wandb read its settings, without the variables of the environment that it does not take.

    wandb would refuse to start for one of them.

    Returns:
        Why, in words, by their names.
    """
    import wandb

    refused = {name: why for name in os.environ if (why := _refusal(name))}
    left_out = {name: os.environ.pop(name) for name in refused}
    try:
        wandb.setup(wandb.Settings(silent=True))
    finally:
        os.environ |= left_out
    return refused


def setting(name: str) -> str | None:
    """The value of one of wandb's variables; None where it is not set, empty, or none that wandb takes."""
    return None if _refusal(name) else os.environ.get(name) or None


def _refusal(name: str) -> str | None:
    """Why wandb does not take a variable of the environment, without what may be a secret in it; None if it does."""
    import wandb

    if not name.startswith("WANDB_") or name not in os.environ:
        return None
    try:
        wandb.Settings().update_from_env_vars({name: os.environ[name]})
    except (ValueError, wandb.Error) as error:
        if name == ADDRESS:  # may hold a password, which wandb would show
            return f"{name} is no address that wandb takes, such as https://api.wandb.ai"
        return f"{name} has a value that wandb does not take: {wandb_says(error)}"  # and that may be a password
    return None


def wandb_says(error: Exception) -> str:
    """What is wrong with a setting, in one line; pydantic wraps it in three, with the value."""
    found = error.errors()[0]["msg"] if hasattr(error, "errors") else error
    return one_line(found).removeprefix("Value error, ")


@dataclass(frozen=True)
class Server:
    """Where runs are sent.

    Attributes:
        url: of its API, without a password in it.
        key: of the user; never shown. None for a login without one, by an identity token.
        problem: why there is no login; None if there is one.
    """

    url: str
    key: str | None = field(repr=False)
    problem: str | None = None

    @classmethod
    def find(cls) -> Server:
        """Return the server that wandb would use, with the credentials that it would find; nobody is asked."""
        import wandb

        problem = settle().get(ADDRESS)
        if problem is not None:
            return cls("", None, problem)
        url = one_line(wandb.setup().settings.base_url).rstrip("/")
        try:
            known = wandb.login(prompt=False, verify=False)
        except wandb.Error:  # its words are about the key
            return cls(url, None, f"the key for {url} is none that wandb takes")
        problem = None if known else f"there is no key for {url}: run `wandb login`, or set WANDB_API_KEY"
        return cls(url, wandb.setup().settings.api_key, problem)

    def refusal(self) -> str | None:
        """Why it takes no run from this user, in words; None if it does."""
        if self.problem is not None:
            return self.problem
        answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=lambda: answers.put(self._ask()), daemon=True).start()
        try:
            return answers.get(timeout=ASK_S)
        except queue.Empty:
            return self._silence

    @property
    def _silence(self) -> str:
        return f"{self.url} does not answer within {ASK_S:g} s"

    def _ask(self) -> str | None:
        query = json.dumps({"query": "query { viewer { id } }"}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", data=query, headers={"Content-Type": "application/json"}
        )
        if self.key is not None:  # not to be sent on to where a redirection leads
            credentials = base64.b64encode(f"api:{self.key}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                known = json.load(answer)["data"]["viewer"]
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return f"{self.url} refuses the key (HTTP {error.code})"
            return f"{self.url} answers with HTTP {error.code}"
        except OSError as error:
            reason = getattr(error, "reason", error)
            return self._silence if isinstance(reason, TimeoutError) else f"{self.url} cannot be reached ({reason})"
        except (http.client.HTTPException, ValueError, LookupError, TypeError):
            return f"{self.url} does not answer as a W&B server does"
        return None if known or self.key is None else f"{self.url} does not know the key"
