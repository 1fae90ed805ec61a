"""Worker processes that end with their parent, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from ctxrecon.errors import InputError

_Result = TypeVar("_Result")


def in_processes(
    work: Callable[..., _Result],
    shared: object,
    calls: Sequence[tuple[object, ...]],
    workers: int,
    report: Callable[[_Result], None],
) -> None:
    """Call ``work(shared, *arguments)`` for each of the calls in worker processes.

    Args:
        work: Function defined at module level.
        shared: First argument of all calls, sent once to each process.
        calls: Remaining arguments of each call.
        workers: Number of processes.
        report: Callback that receives each result as it arrives.

    Raises:
        InputError: If a worker dies.
    """
    context = multiprocessing.get_context("spawn")
    # Nothing is ever sent: workers end when the pipe is closed, by us or by our death.
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(shared, watched)
    )
    try:
        futures = [pool.submit(_call, work, arguments) for arguments in calls]
        for future in as_completed(futures):
            report(future.result())
    except BrokenProcessPool as error:
        held.close()
        raise InputError(
            "a worker process died (perhaps killed for lack of memory); finished shards are kept: "
            "run the same command again with fewer --workers"
        ) from error
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


_shared: object = None


def _start(shared: object, watched: Connection) -> None:
    """Initialize a worker: a single thread, no Ctrl-C handling, and an end with its parent."""
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    with suppress(EOFError, OSError):
        watched.recv_bytes()
    os._exit(1)


def _call(work: Callable[..., _Result], arguments: tuple[object, ...]) -> _Result:
    return work(_shared, *arguments)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use a single thread, as workers do, so that sums are rounded identically."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
