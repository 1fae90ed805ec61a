"""Reconstruction of a volume with all methods, a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.joint import JointResult, run_joint
from ctxrecon.commands.logs import slice_named
from ctxrecon.commands.methods import (
    BASELINES,
    JOINT,
    NETWORK,
    PRIOR,
    PriorRun,
    first_sample,
    run_baseline,
    run_network,
    run_prior,
)
from ctxrecon.commands.partial import PartialFolder
from ctxrecon.commands.results import Part, Result, join_results
from ctxrecon.commands.volume import Volume, part_of

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.pipelines import Measurement
    from ctxrecon.scan import Scan

# One slice at a time on a CPU: as fast, and images do not depend on which slices are selected.
_AT_ONCE = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Work:
    """Work to do on every slice.

    Attributes:
        volume: Slices to reconstruct.
        masks: Sampling masks of shape ``(slices or 1, 1, ny, nx)``, or ``None`` for the masks of
            a joint model or for a non-Cartesian scan.
        undersampled: Whether the masks retrospectively undersample the data.
        methods: Methods in the order in which they run.
        pipes: Pipelines by method, for methods that have one.
        names: Display names of the models by method.
        run: Settings of the diffusion prior, with the prompts of all slices.
        prompts: Prompts of all slices for networks that read them, or ``None``.
        acceleration: Acceleration factor of the joint model's own masks.
        other_contrast: Reference images of another contrast of shape ``(slices, ny, nx)``, for
            a network that uses them.
    """

    volume: Volume
    masks: Tensor | None
    undersampled: bool
    methods: tuple[str, ...]
    pipes: dict[str, Any]
    names: dict[str, str]
    run: PriorRun
    prompts: list[str] | None
    acceleration: float | None
    other_contrast: Tensor | None = None

    @property
    def together(self) -> str | None:
        """Name of the method that needs all slices at once, or ``None``."""
        if JOINT in self.pipes:
            return "a model with its own masks"
        solver = self.run.solver
        if PRIOR in self.pipes and solver is not None and solver.couples_batch:
            return solver.name
        return None

    def chunks(self) -> list[range]:
        """Return the positions of the slices to reconstruct together.

        Raises:
            InputError: If all slices have to be reconstructed at once and do not fit into memory.
        """
        count = len(self.volume)
        if self.together is not None:
            self.volume.check_memory(self.together)
            return [range(count)]
        if self.volume.masks is None:  # each slice may have its own trajectory
            return [range(number, number + 1) for number in range(count)]
        devices = [pipe.device.type for pipe in self.pipes.values()]
        size = self.run.batch_size or min((_AT_ONCE.get(d, 1) for d in devices), default=1)
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def do(self, positions: range, seen: Callable[[Result, Tensor | None], None]) -> Done:
        """Reconstruct some slices with all methods.

        Args:
            positions: Consecutive positions of slices in the volume.
            seen: Function called with each result and the reference.
        """
        from ctxrecon.evaluation.grid import mvue_reference
        from ctxrecon.evaluation.scans import is_fully_sampled

        scan = self.volume.read(positions)
        reference = scan.target
        own = JOINT in self.pipes and self.masks is None and is_fully_sampled(scan)
        if reference is None and (self.undersampled or own):
            reference = mvue_reference(scan)
        joint, measurement = self._measure(scan, positions)
        results: list[Result] = []
        for method in self.methods:
            for result in self._results(method, positions, measurement, joint):
                seen(result, reference)
                results.append(replace(result, samples=None))
        return Done(Part(results, reference), joint)

    def _measure(self, scan: Scan, positions: range) -> tuple[JointResult | None, Measurement]:
        from ctxrecon.pipelines import Measurement

        if JOINT in self.pipes:
            joint = run_joint(
                self.pipes[JOINT],
                scan,
                self.masks,
                self.prompts,
                self.acceleration,
                self.run.seed,
                self.volume.numbers,
                self.names[JOINT],
            )
            return joint, joint.measurement
        if self.masks is None:
            return None, Measurement.from_scan(scan)
        mask = part_of(self.masks, positions)
        kspace = scan.kspace * mask if self.undersampled else scan.kspace
        return None, Measurement.from_scan(replace(scan, kspace=kspace, mask=mask))

    def _results(
        self, method: str, positions: range, measurement: Measurement, joint: JointResult | None
    ) -> Iterator[Result]:
        chosen = slice(positions[0], positions[-1] + 1)
        if method in BASELINES:
            yield run_baseline(method, measurement)
        elif method == JOINT:
            assert joint is not None
            yield joint.result
        elif method == NETWORK:
            prompts = None if self.prompts is None else self.prompts[chosen]
            other = None if self.other_contrast is None else self.other_contrast[chosen]
            yield run_network(
                self.pipes[method],
                prompts,
                measurement,
                self.names[method],
                self.run.batch_size,
                other,
            )
        else:
            prompts = None if self.run.prompts is None else self.run.prompts[chosen]
            run = replace(self.run, prompts=prompts, first=self.volume.numbers[positions[0]])
            mean = run_prior(self.pipes[PRIOR], run, measurement)
            if mean.samples is not None:
                yield first_sample(mean, measurement)
            yield mean


@dataclass(frozen=True)
class Done:
    """Finished slices, with the further outputs of a joint model."""

    part: Part
    joint: JointResult | None = None


def reconstruct_slices(
    work: Work,
    chunks: list[range],
    kept: PartialFolder | None,
    show: Callable[[Result, Tensor | None], None],
) -> tuple[list[Result], Tensor | None, JointResult | None]:
    """Reconstruct all slices with all methods.

    Args:
        work: Work to do on every slice.
        chunks: Positions of the slices to reconstruct together, see :meth:`Work.chunks`.
        kept: Folder of finished chunks, to which new ones are added, or ``None`` to keep none.
        show: Function called with each method's result for all slices and their reference.

    Returns:
        The results, the reference, and the further outputs of a joint model.
    """
    from tqdm.auto import tqdm

    parts: list[Part] = []
    shown = 0
    joint: JointResult | None = None

    def seen(result: Result, reference: Tensor | None) -> None:
        nonlocal shown
        if len(parts) == len(chunks) - 1:
            with slice_named(None):  # the result covers all slices
                show(
                    join_results([*(part.results[shown] for part in parts), result]),
                    _all_references([*(part.reference for part in parts), reference]),
                )
            shown += 1

    count = len(work.volume)
    if len(chunks) > 1:
        for pipe in (*work.pipes.values(), *filter(None, [work.run.network])):
            pipe.set_progress_bar_config(disable=True)
    with tqdm(total=count, unit="slice", leave=False, disable=len(chunks) < 2) as bar:
        for positions in chunks:
            number = work.volume.numbers[positions[0]]
            part = (
                None
                if kept is None
                else kept.load(number, (len(positions), *work.volume.shape[1:]))
            )
            if part is None:
                with slice_named(number if len(chunks) > 1 else None):
                    done = work.do(positions, seen)
                part, joint = done.part, done.joint
                if kept is not None:
                    kept.save(number, part)
            parts.append(part)
            bar.update(len(positions))
    results = [join_results(of_one) for of_one in zip(*(p.results for p in parts), strict=True)]
    reference = _all_references([part.reference for part in parts])
    for result in results[shown:]:  # if the last chunk was loaded from the folder
        show(result, reference)
    return results, reference, joint


def _all_references(references: list[Tensor | None]) -> Tensor | None:
    import torch

    there = [reference for reference in references if reference is not None]
    return torch.cat(there) if there else None
