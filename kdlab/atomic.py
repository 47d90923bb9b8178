"""Files that are either the old version or the new one, never half of it, whenever the process dies."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdlab.errors import UsageError


@contextmanager
def atomic_write(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`; what was written there replaces `target` when the block ends.

    The temporary file lies in the target's folder because a rename is atomic only within one file system
    (the system's temporary folder is often another one). It is flushed to disk before the rename, and the
    folder after it. If the block raises, the target stays as it was and the temporary file is removed.

    Raises:
        UsageError: if the target is a device or a pipe.
        OSError: with the target's name, if the disk refuses; also a full disk, which Python does not name.
    """
    target = Path(target)
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise UsageError(f"{target} is a device or a pipe, which a file would replace; give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    # processes of other machines may have the same number and write the same file on the same disk
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)  # safetensors makes its files readable for their owner only
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part), str(target.parent)):
            raise  # of something else that the block did
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(target: Path | str, text: str) -> None:
    """Replace the content of `target` by `text`, atomically."""
    with atomic_write(target) as part:
        part.write_text(text, encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
