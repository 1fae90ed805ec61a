"""Lock of an output folder, so that only one run writes to it."""

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
    """Lock a folder against a second run; the lock is released when the process ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(
            f"no permission to write to {out}: change its permissions, or use another --out"
        )
    try:
        file = (out / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to {out / LOCK} ({error.strerror}): change its permissions, or use "
            "another --out"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {out}: wait until it ends, or use another --out"
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot lock {out / LOCK} ({error.strerror}): use an --out on another disk"
            ) from error
        yield
