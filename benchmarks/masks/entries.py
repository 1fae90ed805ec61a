"""Entries of the study's tables: samplers with their networks and test accelerations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.training import slug


@dataclass(frozen=True)
class Entry:
    """One sampler with its network.

    Attributes:
        title: Name in the table.
        sampler: Value of ``--sampler``; ``{ratio}`` is replaced by the sampling ratio of training.
        network: Value of ``--network``.
        accelerations: Accelerations of training, one model each; for a model that serves a range of
            ratios, accelerations of the test.
        options: Further options of the training script.
        times: Training length relative to the other entries.
        tested: Accelerations at which a model is tested; by default the one of its training.
        stages: Report every stage of its masks in a separate row.
        after: Title of the entry whose network continues training; by default a new network.
        published: BD-PSNR and BD-rate in the publication, shown on the page.
    """

    title: str
    sampler: str
    network: str
    accelerations: tuple[float, ...] = (4.0,)
    options: tuple[str, ...] = ()
    times: int = 1
    tested: tuple[float, ...] = ()
    stages: bool = False
    after: str = ""
    published: str = ""

    @property
    def amortized(self) -> bool:
        """True if one model serves every acceleration."""
        return "ratios" in self.sampler and "{ratio}" not in self.sampler

    def sampler_for(self, acceleration: float) -> str:
        """Return the value of ``--sampler`` for a training acceleration."""
        return self.sampler.replace("{ratio}", f"{1 / acceleration:g}")

    def acceleration_for(self, acceleration: float) -> list[str]:
        """Return ``--acceleration`` with its value, or nothing for a range of ratios."""
        return [] if "ratios" in self.sampler else ["--acceleration", f"{acceleration:g}"]

    def tested_at(self, acceleration: float) -> tuple[float, ...]:
        """Return the test accelerations of the model trained for an acceleration."""
        return self.tested or (self.accelerations if self.amortized else (acceleration,))

    def folder(self, runs: Path, table: str, acceleration: float, seed: str) -> Path:
        """Return the folder of the model trained for an acceleration.

        Args:
            runs: Folder of all runs.
            table: Name of the table.
            acceleration: Acceleration of training.
            seed: Suffix that names the seed, or an empty string.
        """
        suffix = "" if self.amortized else f"_x{acceleration:.3g}"
        return runs / f"{table}_{slug(self.title)}{suffix}{seed}"


@dataclass(frozen=True)
class Table:
    """A table of entries.

    Attributes:
        title: Heading.
        entries: Entries in their order.
        compared: Title of the entry that the others are compared with, scan by scan.
        contrasts: Contrasts of each subject.
        options: Options of the training script for all entries.
        sweep: Use the smaller matrix.
        num_coils: Number of simulated coils.
        batch_size: Slices, or subjects with all their contrasts, in a batch.
        prior: Also reconstruct by the shipped diffusion prior with its default solver, under the
            masks of the entries with the first network.
        intervals: Report 95 % intervals over trainings from several seeds.
    """

    title: str
    entries: tuple[Entry, ...]
    compared: str
    contrasts: str = "multi_echo"
    options: tuple[str, ...] = ("--anatomy", "brain", "--center_fraction", "0.0625")
    sweep: bool = False
    num_coils: int = 4
    batch_size: int = 2
    prior: bool = False
    intervals: bool = False

    @property
    def magnitude(self) -> bool:
        """True if the scanned images are magnitudes."""
        return "--magnitude_images" in self.options

    @property
    def amortized(self) -> bool:
        """True if one model of an entry serves every acceleration."""
        return any(entry.amortized for entry in self.entries)

    def entry(self, title: str) -> Entry:
        """Return the entry with a title."""
        return next(entry for entry in self.entries if entry.title == title)


def table_of(recorded: dict[str, Any]) -> Table:
    """Return the table stored in a record."""
    return Table(**recorded | {"entries": tuple(Entry(**one) for one in recorded["entries"])})
