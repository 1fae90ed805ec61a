"""Entries of the study's tables: a sampler with its network, and what it is tested at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.training import slug


@dataclass(frozen=True)
class Entry:
    """One sampler with its network.

    Attributes:
        title: in the table.
        sampler: as ``--sampler`` takes it; ``{ratio}`` stands for that of the acceleration it is
            trained for.
        network: as ``--network`` takes it.
        accelerations: it is trained for each, or, serving a range of ratios, tested at each.
        options: further ones of the training script.
        times: how many times as long as the others it is trained.
        tested: accelerations that a model trained for one is tested at; by default that one.
        stages: whether every stage of its masks is a row of its own.
        after: title of the entry whose network it goes on with, in place of one of its own.
        published: its BD-PSNR and BD-rate in the publication, which the page shows.
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
    def amortised(self) -> bool:
        """Whether one model serves every acceleration."""
        return "ratios" in self.sampler and "{ratio}" not in self.sampler

    def sampler_for(self, acceleration: float) -> str:
        """``--sampler`` of the model that is trained for an acceleration, or for all."""
        return self.sampler.replace("{ratio}", f"{1 / acceleration:g}")

    def acceleration_for(self, acceleration: float) -> list[str]:
        """``--acceleration`` of it, where a range of ratios does not say it."""
        return [] if "ratios" in self.sampler else ["--acceleration", f"{acceleration:g}"]

    def tested_at(self, acceleration: float) -> tuple[float, ...]:
        """What the model trained for an acceleration is tested at."""
        return self.tested or (self.accelerations if self.amortised else (acceleration,))

    def folder(self, runs: Path, table: str, acceleration: float, seed: str) -> Path:
        """Where the model trained for an acceleration lies.

        Args:
            runs: folder of all runs.
            table: its name.
            acceleration: of training.
            seed: what the name of the folder says of the seed, if anything.
        """
        suffix = "" if self.amortised else f"_x{acceleration:.3g}"
        return runs / f"{table}_{slug(self.title)}{suffix}{seed}"


@dataclass(frozen=True)
class Table:
    """A table of entries.

    Attributes:
        title: over it.
        entries: in its order.
        compared: title of the entry that the others are compared with, scan by scan.
        contrasts: of each subject.
        options: of the training script, for all entries.
        sweep: whether it is of the smaller matrix.
        num_coils: of the simulated array.
        batch_size: slices, or subjects with all their contrasts.
        prior: whether the diffusion prior that is shipped, with its default solver,
            reconstructs with the masks of the entries of the first network as well.
        intervals: whether the page gives 95 % intervals over trainings from several seeds.
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
        """Whether magnitudes are scanned."""
        return "--magnitude_images" in self.options

    @property
    def amortised(self) -> bool:
        """Whether one model of an entry serves every acceleration."""
        return any(entry.amortised for entry in self.entries)

    def entry(self, title: str) -> Entry:
        """The entry of a title."""
        return next(entry for entry in self.entries if entry.title == title)


def table_of(recorded: dict[str, Any]) -> Table:
    """The table as a record holds it."""
    return Table(**recorded | {"entries": tuple(Entry(**one) for one in recorded["entries"])})
