"""Asks once, with a deadline, whether a host can be reached, before a library retries for a minute.

The only file of `kdlab.models` that touches the network, and only where pretrained weights are wanted.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch

from kdlab.errors import UsageError

TIMEOUT_S = 5.0


def unreachable_reason(url: str) -> str | None:
    """Return why `url` cannot be reached within `TIMEOUT_S`, or ``None`` if some server answers, whatever it says."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError:
        return None
    except OSError as error:  # URLError, timeouts and refused connections are all of them
        return str(getattr(error, "reason", error))


def require_reachable_or_cached(url: str, what: str, fix: str) -> None:
    """Refuse at once where `url` is neither in torch.hub's cache nor reachable.

    Args:
        url: address of a file of weights.
        what: what the file is, for the message.
        fix: the setting that does without it, for the message.

    Raises:
        UsageError: with the reason, the cache folder and the fix.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / Path(urlparse(url).path).name).exists():
        return
    reason = unreachable_reason(url)
    if reason is not None:
        raise UsageError(f"{what} cannot be downloaded from {url} ({reason}); set {fix} or put the file into {folder}")


@contextmanager
def huggingface_offline_if_unreachable() -> Iterator[None]:
    """Keep the Hugging Face client, which retries for up to 46 s, to its cache where its server does not answer."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or unreachable_reason(constants.ENDPOINT) is not None
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
