"""Building of an anatomy bank with several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ctxrecon.errors import InputError
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.brain import brain_anatomy
from ctxrecon.phantom.brain_findings import check_finding
from ctxrecon.phantom.knee import knee_anatomy
from ctxrecon.phantom.labels import PLANES, anatomy_from_labels, load_label_volume
from ctxrecon.phantom.person import draw_person

_PROCEDURAL = {"brain": brain_anatomy, "knee": knee_anatomy}
_PLANE_SHARES = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class _Job:
    """One anatomy, procedural or a slice of a label volume, which depends only on these values."""

    anatomy: str
    person: int
    seed: tuple[int, int]
    volume: Path | None = None
    demographics: bool = False
    finding: str | None = None

    def draw(self, size: int) -> Anatomy:
        rng = np.random.default_rng(self.seed)
        if self.volume is None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            person = draw_person(rng, self.anatomy) if self.demographics else None
            planned: dict[str, Any] = {} if self.finding is None else {"finding": self.finding}
            return _PROCEDURAL[self.anatomy](generator, size=size, person=person, **planned)
        plane = str(rng.choice(PLANES, p=_PLANE_SHARES))
        # Half of them show the whole head, half a part of it at 1 mm after downsampling by two.
        voxel = rng.uniform(0.82, 1.0) if rng.random() < 0.5 else rng.uniform(0.42, 0.55)
        return anatomy_from_labels(
            _volume(self.volume),
            float(rng.random()),
            rng,
            size=size,
            voxel_mm=float(voxel),
            plane=plane,
        )


@lru_cache(maxsize=2)
def _volume(path: Path) -> NDArray[np.int16]:
    return load_label_volume(path)


def build_bank(
    *,
    knees: int = 0,
    brains: int = 0,
    label_volumes: Sequence[Path] = (),
    label_slices: int = 0,
    size: int = 256,
    seed: int = 0,
    demographics: bool = True,
    finding: str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> AnatomyBank:
    """Draw an anatomy bank, which depends on the seed but not on the number of processes.

    Args:
        knees: Number of procedural knees, each of a different person.
        brains: Number of procedural brains, each of a different person.
        label_volumes: NIfTI files of FreeSurfer labels, one per person.
        label_slices: Total number of slices of the label volumes, in all three planes.
        size: Edge length of the label maps in pixels.
        seed: Random seed of the bank.
        demographics: Whether procedural anatomies have a person with age and sex; see
            :func:`~ctxrecon.phantom.draw_person`. Slices of label volumes have none.
        finding: Finding to draw in every procedural brain with place for it; see
            :func:`~ctxrecon.phantom.brain_anatomy`.
        workers: Number of processes; scripts with more than one need
            ``if __name__ == "__main__":``.
        progress: Whether to show a progress bar.

    Raises:
        InputError: If there is nothing to draw, a label volume cannot be read, the finding is
            unknown, or an argument has no effect: a finding without brains, slices without label
            volumes, or the reverse.
    """
    if finding is not None:
        check_finding(finding)
        if not brains:
            raise InputError(
                f"`finding` {finding!r} is for procedural brains: set `brains` above 0"
            )
    if label_slices and not label_volumes:
        raise InputError(
            f"got {label_slices} `label_slices` but no `label_volumes`: specify both or neither"
        )
    if label_volumes and not label_slices:
        raise InputError(
            f"got {len(label_volumes)} `label_volumes` but no `label_slices`: specify both or "
            "neither"
        )
    procedural = partial(_Job, demographics=demographics)
    jobs = [procedural("knee", person, (seed, person)) for person in range(knees)]
    planned = partial(procedural, finding=finding)
    jobs += [planned("brain", person, (seed, person)) for person in range(knees, knees + brains)]
    if label_volumes:
        shares = np.array_split(np.arange(label_slices), len(label_volumes))
        for number, (path, share) in enumerate(zip(label_volumes, shares, strict=True)):
            person = knees + brains + number
            first = knees + brains
            jobs += [_Job("brain", person, (seed, first + int(place)), path) for place in share]
    if not jobs:
        raise InputError("nothing to draw: request brains, knees or slices of label volumes")
    draw = partial(_Job.draw, size=size)
    with tqdm(total=len(jobs), unit="anatomy", disable=not progress) as bar:
        drawn = []
        for anatomy in map(draw, jobs) if workers == 1 else _in_processes(draw, jobs, workers):
            drawn.append(anatomy)
            bar.update()
    return AnatomyBank.build(drawn, [job.person for job in jobs])


def _in_processes(
    draw: Callable[[_Job], Anatomy], jobs: Sequence[_Job], workers: int
) -> Iterator[Anatomy]:
    """Yield the anatomies in the order of the jobs."""
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(draw, jobs, chunksize=8)
