"""A volume by all methods, a few slices at a time."""

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

# Each slice alone on a CPU: as fast, and the same image whichever slices are asked for.
_AT_ONCE = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Work:
    """What is done to every slice.

    Attributes:
        volume: the slices.
        masks: ``(slices or 1, 1, ny, nx)`` of what is reconstructed; ``None`` leaves them to a
            joint model, or is of a scan along a trajectory.
        undersampled: whether the masks leave out some of what was measured on purpose.
        methods: in the order in which they run.
        pipes: of the methods that have one.
        names: of their models.
        run: of the diffusion prior, with the prompts of all slices.
        prompts: of all slices, for networks that read them; ``None`` for none.
        acceleration: of the joint model's own masks.
        other_contrast: ``(slices, ny, nx)``, for a network that such a reference helps.
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
        """Who needs all slices at once, if somebody does."""
        if JOINT in self.pipes:
            return "a model with masks of its own"
        solver = self.run.solver
        if PRIOR in self.pipes and solver is not None and solver.couples_batch:
            return solver.name
        return None

    def chunks(self) -> list[range]:
        """Positions of the slices that are reconstructed at once.

        Raises:
            InputError: all have to be, and they would not fit into memory.
        """
        count = len(self.volume)
        if self.together is not None:
            self.volume.check_memory(self.together)
            return [range(count)]
        if self.volume.masks is None:  # each slice may have a trajectory of its own
            return [range(number, number + 1) for number in range(count)]
        devices = [pipe.device.type for pipe in self.pipes.values()]
        size = self.run.batch_size or min((_AT_ONCE.get(d, 1) for d in devices), default=1)
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def do(self, positions: range, seen: Callable[[Result, Tensor | None], None]) -> Done:
        """Reconstruct some slices.

        Args:
            positions: consecutive.
            seen: called with each result and the reference.
        """
        from ctxrecon.evaluation.grid import is_fully_sampled, mvue_reference

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
    """Some slices that are done, and what a joint model gave beside its images."""

    part: Part
    joint: JointResult | None = None


def reconstruct_slices(
    work: Work,
    chunks: list[range],
    kept: PartialFolder | None,
    show: Callable[[Result, Tensor | None], None],
) -> tuple[list[Result], Tensor | None, JointResult | None]:
    """All slices by all methods.

    Args:
        work: what is done to each.
        chunks: see :meth:`Work.chunks`.
        kept: the chunks that are done already, and those to come; ``None`` to keep none.
        show: called with each method's result for all slices and the reference of all.

    Returns:
        the results, the reference, and what a joint model gave beside its images.
    """
    from tqdm.auto import tqdm

    parts: list[Part] = []
    shown = 0
    joint: JointResult | None = None

    def seen(result: Result, reference: Tensor | None) -> None:
        nonlocal shown
        if len(parts) == len(chunks) - 1:
            with slice_named(None):  # it is of all slices
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
    for result in results[shown:]:  # the last chunk was done before
        show(result, reference)
    return results, reference, joint


def _all_references(references: list[Tensor | None]) -> Tensor | None:
    import torch

    there = [reference for reference in references if reference is not None]
    return torch.cat(there) if there else None
