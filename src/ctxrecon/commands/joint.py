"""Scans sampled and reconstructed by a joint model, trained for both on one or more contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.images import ImageWriter
from ctxrecon.commands.inputs import single_maps
from ctxrecon.commands.paths import Outputs
from ctxrecon.commands.results import Result
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.pipelines import JointPipeline, Measurement
    from ctxrecon.scan import Scan


@dataclass(frozen=True)
class JointResult:
    """Output of a joint model.

    Attributes:
        result: Images, one per slice of the scan.
        measurement: Samples that the model chose, for the other methods.
        t2star: T2* maps in ms of shape ``(subjects, ny, nx)``, or ``None``.
    """

    result: Result
    measurement: Measurement
    t2star: Tensor | None


def run_joint(
    pipe: JointPipeline,
    scan: Scan,
    mask: Any,
    prompts: list[str] | None,
    acceleration: float | None,
    seed: int,
    numbers: Sequence[int],
    name: str,
) -> JointResult:
    """Reconstruct a scan's slices as the contrasts of one subject, or each by itself.

    A model of several contrasts receives all slices together. Fully sampled scans are
    undersampled with the model's own masks; other scans are reconstructed as they are.

    Args:
        pipe: Joint pipeline.
        scan: Scan, with one slice per contrast for a model of several contrasts.
        mask: Sampling mask that replaces the scan's own, or ``None``.
        prompts: One prompt per slice, or ``None``.
        acceleration: Acceleration factor of the model's masks, or ``None`` for its own.
        seed: Random seed of the masks.
        numbers: Number of each slice in its file; the masks of a slice depend on its number and
            the seed alone.
        name: Display name of the model.

    Raises:
        InputError: If an acceleration is given for a scan that is already undersampled, or if the
            number of slices differs from the model's number of contrasts.
    """
    from ctxrecon.arrays import check_mask
    from ctxrecon.evaluation.scans import is_fully_sampled
    from ctxrecon.inference.batches import slice_generators
    from ctxrecon.pipelines import prepare_measurement

    contrasts = pipe.config.contrasts
    together = contrasts > 1
    if together and len(scan) != contrasts:
        raise InputError(
            f"this model needs {contrasts} contrasts of one slice, and the scan has {len(scan)} "
            "slices: select the contrasts of one slice with --slices"
        )
    axis = 0 if together else 1
    sampled = (
        scan.cartesian_mask
        if mask is None
        else check_mask(mask, (len(scan), *scan.kspace.shape[2:]))
    )
    full = mask is None and is_fully_sampled(scan)
    if not full and acceleration is not None:
        raise InputError(
            "--acceleration applies to the model's own masks, and this scan is already "
            "undersampled: leave it out"
        )
    maps = single_maps(scan)
    if together and maps is not None and len(maps) > 1:
        # Without a calibration scan the pipeline estimates one set for all contrasts.
        maps = None if scan.calibration is None else maps[:1]
    output = pipe(
        scan.kspace.unsqueeze(axis),
        None if full else sampled.expand(len(scan), -1, -1, -1).unsqueeze(axis),
        None if prompts is None else (prompts if together else [[text] for text in prompts]),
        acceleration=acceleration,
        coil_maps=maps,
        generator=slice_generators(seed, numbers[:1] if together else numbers),
    )
    masks = output.masks.flatten(0, 1).cpu()
    found = None if output.coil_maps is None else output.coil_maps.cpu()
    result = Result(
        name=f"{type(pipe.reconstructor).__name__} and sampler, {name}",
        key="joint",
        images=output.images.flatten(0, 1).cpu(),
        residual=output.residual.flatten().cpu(),
        seconds=None,
        std=None if output.expected_error is None else output.expected_error.flatten(0, 1).cpu(),
    )
    measurement = prepare_measurement(scan.kspace * masks, masks, found)
    return JointResult(result, measurement, None if output.t2star is None else output.t2star.cpu())


def write_sampling(outputs: Outputs, found: JointResult, writer: ImageWriter) -> list[Path]:
    """Write the masks as ``.npy``, their line order as JSON, and the T2* map if there is one."""
    import numpy as np

    from ctxrecon.files import written_beside
    from ctxrecon.masks.learned import write_line_order

    masks = found.measurement.mask
    assert masks is not None
    written = [outputs.masks]
    with written_beside(outputs.masks) as path, path.open("wb") as file:
        np.save(file, masks.numpy())
    if bool((masks == masks[..., :1, :]).all()):
        write_line_order(outputs.lines, masks[None])
        written.append(outputs.lines)
    if found.t2star is not None:
        written += writer.write(
            outputs.t2star, found.t2star, found.result.name, "t2star", metadata=False
        )
    return written
