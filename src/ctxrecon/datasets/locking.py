"""One run at a time in a folder that is written to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxrecon.errors import InputError

LOCK = ".lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Refuse a second run in the same folder; the lock ends with the process, however it ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(
            f"{out} may not be written to: change its permissions, or give another --out"
        )
    try:
        file = (out / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to {out / LOCK} ({error.strerror}): change its permissions, or give "
            "another --out"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {out}: wait for its end, or give another --out"
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot lock {out / LOCK} ({error.strerror}): give an --out on another disk"
            ) from error
        yield
