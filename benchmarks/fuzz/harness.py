"""Reading of mutated files in worker processes with limited memory and time."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz.mutations import mutate, spans_of
from benchmarks.fuzz.subjects import Subject
from ctxrecon.errors import InputError

EQUAL, DIFFERS, LOGGED, REFUSED = "equal", "differs_silently", "differs_and_logged", "refused"
ERROR, CRASH, HANG, MEMORY = "error", "crash", "hang", "memory"
FAILURES = (ERROR, CRASH, HANG, MEMORY)
OUTCOMES = (EQUAL, LOGGED, DIFFERS, REFUSED, *FAILURES)


@dataclass(frozen=True)
class Limits:
    """Limits for reading one file: additional memory in bytes, and time in seconds."""

    memory: int = 2 * 2**30
    seconds: float = 10.0


@dataclass(frozen=True)
class Result:
    """Outcome of one mutation."""

    subject: str
    index: int
    part: str
    outcome: str
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return asdict(self)


class _Log(logging.Handler):
    """Log handler that collects messages."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Store a message."""
        self.lines.add(f"{record.name}: {record.getMessage()}")


@contextmanager
def _logged() -> Iterator[set[str]]:
    """Collect the messages that the package logs in the ``with`` block."""
    logger, handler = logging.getLogger("ctxrecon"), _Log()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class Mutant:
    """A format whose files are mutated and read in a folder.

    Args:
        subject: Format.
        folder: Empty folder for its files.
        seed: Random seed of the mutations.
    """

    def __init__(self, subject: Subject, folder: Path, seed: int) -> None:
        self.subject, self.folder = subject, folder
        self._seed = seed
        subject.write(folder)
        self.originals = {name: (folder / name).read_bytes() for name in subject.files}
        self._payload = {
            name: spans_of(raw, subject.blocks) for name, raw in self.originals.items()
        }
        with _logged() as lines:
            self._expected = repr(subject.read(folder / subject.files[0]))
        self._lines = lines

    def write(self, index: int) -> str:
        """Write the files with one mutation; return the part that was changed."""
        key = [self._seed, index, *self.subject.name.encode()]
        generator = np.random.default_rng(key)
        # Small header files are mutated as often as the large files that they belong to.
        changed = self.subject.files[int(generator.integers(len(self.subject.files)))]
        raw, part = mutate(self.originals[changed], self._payload[changed], generator)
        for name, original in self.originals.items():
            (self.folder / name).write_bytes(raw if name == changed else original)
        return part

    def read(self) -> tuple[str, str]:
        """Read the files; return the outcome and the error message, if any."""
        try:
            with _logged() as lines:
                found = repr(self.subject.read(self.folder / self.subject.files[0]))
        except InputError as error:
            return REFUSED, str(error)
        except MemoryError:
            return MEMORY, "MemoryError"
        except Exception as error:
            return ERROR, f"{type(error).__name__}: {error}"[:500]
        if found == self._expected:
            return EQUAL, ""
        return (LOGGED, "") if lines - self._lines else (DIFFERS, found[:2000])


def fuzz(
    subject: Subject, indices: Sequence[int], seed: int, limits: Limits | None = None
) -> Iterator[Result]:
    """Mutate and read files in a process that is restarted after a crash or hang.

    Args:
        subject: Format.
        indices: Numbers of the mutations, reproducible for a given seed.
        seed: Random seed of the mutations.
        limits: Limits of memory and time.
    """
    limits = limits or Limits()
    todo = list(indices)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while todo:
            worker = _Worker(subject, Path(folder), seed, limits, todo)
            for result in worker.results():
                yield result
                todo = todo[1:]


class _Worker:
    """Forked process that reads one mutation after the other."""

    def __init__(
        self, subject: Subject, folder: Path, seed: int, limits: Limits, indices: Sequence[int]
    ) -> None:
        self._subject, self._limits, self._indices = subject.name, limits, indices
        own, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        arguments = (subject, folder, seed, limits.memory, indices, theirs)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = own

    def results(self) -> Iterator[Result]:
        """Yield results up to the last mutation or the one that ended the process."""
        part = "structure"
        try:
            for index in self._indices:
                try:
                    if not self._pipe.poll(60):  # writing the mutation is not timed
                        raise EOFError
                    part = self._pipe.recv()
                    if not self._pipe.poll(self._limits.seconds):
                        yield Result(self._subject, index, part, HANG)
                        return
                    outcome, detail = self._pipe.recv()
                except EOFError:
                    self._process.join(5)
                    detail = f"the process ended with {self._process.exitcode}"
                    yield Result(self._subject, index, part, CRASH, detail)
                    return
                yield Result(self._subject, index, part, outcome, detail)
        finally:
            self._process.kill()
            self._process.join()
            self._pipe.close()


def _work(
    subject: Subject,
    folder: Path,
    seed: int,
    memory: int,
    indices: Sequence[int],
    pipe: Connection,
) -> None:
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    mutant = Mutant(subject, folder, seed)
    limit = _address_space() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for index in indices:
        pipe.send(mutant.write(index))
        pipe.send(mutant.read())


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def counts(results: Sequence[Result]) -> dict[str, dict[str, dict[str, int]]]:
    """Count the results by format, part and outcome."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for result in results:
        parts = found.setdefault(result.subject, {})
        outcomes = parts.setdefault(result.part, dict.fromkeys(OUTCOMES, 0))
        outcomes[result.outcome] += 1
    return found


def timed(results: Iterator[Result]) -> tuple[list[Result], float]:
    """Return all results and the elapsed seconds."""
    start = time.perf_counter()
    return list(results), time.perf_counter() - start
