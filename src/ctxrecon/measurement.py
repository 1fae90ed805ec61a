"""The measurement that every method takes: data, operator, and what is known of both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor, check_coil_maps, check_kspace, check_mask
from ctxrecon.coils.slices import estimate_slice_maps, maps_of_calibration
from ctxrecon.coils.trajectories import sense_along
from ctxrecon.emptiness import find_empty
from ctxrecon.errors import InputError
from ctxrecon.intensity import intensity_scale
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import (
    CartesianSense,
    LinearOperator,
    MultiEcho,
    SoftSense,
    combine_sets,
    image_shape,
    sense_operator,
)
from ctxrecon.plausibility import check_conventions
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_SCALE_ITERATIONS = 8
# Normalized maps are that near to a root sum of squares of 1 whoever estimated them.
_NEARLY_NORMALIZED = 0.02


@dataclass(frozen=True)
class Measurement:
    """A checked measurement ``y = A x + n``, all on one device.

    Example:
        >>> measurement = Measurement.from_arrays(kspace, mask)
        >>> output = pipe(measurement, prompt="Knee, PDFS, TR: 3150")

    Attributes:
        y: complex64, ``(batch, coils, ny, nx)`` and zero outside the mask for k-space on a grid,
            the operator's ``range_shape`` for others.
        operator: ``A``, from images ``(batch or 1, ny, nx)``.
        empty: ``(batch,)`` bool, slices of zeros or of nothing but noise, whose maps are the same
            for every coil.
        mask: ``(batch or 1, 1, ny, nx)`` bool; ``None`` where ``A`` has none.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64; ``None`` where ``A`` has none.
        noise_std: ``(batch,)`` standard deviation of the noise of a complex sample as the scanner
            measured it, in the units of ``y``; ``None`` if it did not.
    """

    y: Tensor
    operator: LinearOperator
    empty: Tensor
    mask: Tensor | None = None
    coil_maps: Tensor | None = None
    noise_std: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        kspace: ArrayLike,
        mask: ArrayLike | None = None,
        coil_maps: ArrayLike | None = None,
        *,
        calibration: ArrayLike | None = None,
        noise_std: float | None = None,
    ) -> Measurement:
        """Cartesian k-space with its mask and coil maps, ``A = M F S``.

        What looks as if another convention had been meant is logged as a warning with the remedy;
        see :func:`ctxrecon.plausibility.check_conventions`. Slices without signal, such as those
        of air at the ends of a volume, stay in the batch; see
        :func:`ctxrecon.emptiness.find_empty`.

        Args:
            kspace: complex, centred (zero frequency at ``n // 2``): ``(batch, coils, ny, nx)``,
                ``(coils, ny, nx)`` or, for a single coil, ``(ny, nx)``. NumPy or torch.
            mask: where k-space was sampled: ``(nx,)`` lines, ``(ny, nx)``, ``(batch or 1, ny, nx)``
                or ``(batch or 1, 1, ny, nx)``, bool or numbers 0 and 1. ``None`` takes the samples
                that are not zero in some coil, and logs it. Samples outside a given mask are set
                to zero, and that is logged too.
            coil_maps: complex, ``(coils, ny, nx)``, ``(batch or 1, coils, ny, nx)`` or several
                orthonormal sets, ``(batch or 1, sets, coils, ny, nx)``. ``None`` estimates them
                from the calibration region of ``kspace``, two sets where the field of view is
                smaller than the object (a single coil needs none).
            calibration: complex, ``(coils, cy, cx)`` or ``(batch or 1, coils, cy, cx)``: the fully
                sampled center of k-space of a separate scan with the same field of view, from
                which coil maps are estimated instead.
            noise_std: of the noise of a complex sample, where the scanner measured it.

        Raises:
            InputError: for anything malformed, in a sentence of its own.
        """
        y = check_kspace(kspace)
        batch, coils, ny, nx = y.shape
        sampled = _infer_mask(y) if mask is None else check_mask(mask, (batch, ny, nx)).to(y.device)
        inside = y
        if mask is not None:
            inside = y * sampled
            _check_not_all_outside(y, inside)
        empty = find_empty(inside, sampled).to(y.device)
        maps: Tensor | None = None
        if coil_maps is not None:
            maps = check_coil_maps(coil_maps, (batch, coils, ny, nx), empty).to(y.device)
        check_conventions(y, sampled, maps)
        y = inside
        if maps is None and coils > 1:
            lines = None if calibration is None else check_kspace(calibration).to(y.device)
            maps = estimate_slice_maps(y, sampled, ~empty, lines)
            if maps.ndim == 5:
                logger.info("two sets of coil maps explain the data better than one")
            empty = empty | (maps == 0).flatten(1).all(dim=1)
        measured = None if noise_std is None else torch.full((batch,), noise_std, device=y.device)
        return cls(y, sense_operator(sampled, maps), empty, sampled, maps, measured)

    @classmethod
    def from_scan(cls, scan: Scan) -> Measurement:
        """What a scan file holds; see :meth:`from_arrays`, and :func:`sense_along` of others.

        Raises:
            InputError: slices along different trajectories, or what those refuse.
        """
        noise_std = scan.noise_std or None
        if scan.trajectory is None:
            return cls.from_arrays(
                scan.kspace,
                scan.mask,
                scan.coil_maps,
                calibration=scan.calibration,
                noise_std=noise_std,
            )
        if len(scan.trajectory) > 1:
            raise InputError(
                "the slices lie along different trajectories: make a measurement of each, scan[i]"
            )
        kspace, trajectory = scan.kspace.flatten(2), scan.trajectory[0].flatten(0, 1)
        maps = scan.coil_maps
        if maps is None and scan.calibration is not None:
            maps = maps_of_calibration(scan.calibration, scan.image_shape, num_maps=1)
        operator = sense_along(kspace, trajectory, scan.image_shape, maps)
        if noise_std and operator.density_compensation is not None:
            noise_std *= float(operator.density_compensation.mean()) ** 0.5
        return cls.from_operator(operator, operator.compensate(kspace), noise_std=noise_std)

    @classmethod
    def from_operator(
        cls, operator: LinearOperator, y: ArrayLike, *, noise_std: float | None = None
    ) -> Measurement:
        """Data of any linear operator, such as a radial scan or an image with missing pixels.

        Args:
            operator: ``A``, from images ``(batch or 1, ny, nx)``. Contrasts of a
                :class:`~ctxrecon.operators.MultiEcho` become slices, contrast by contrast of each
                slice.
            y: complex, of the operator's ``range_shape``; NumPy or torch.
            noise_std: of the noise of a complex sample, where it is known.

        Raises:
            InputError: data that do not fit the operator, or that are not finite.
        """
        data = as_tensor(y, "the measurement")
        if isinstance(operator, MultiEcho):
            operator = operator.folded(len(data))
            data = data.flatten(0, 1)
        _check_data(data, operator)
        data = data.to(operator.device or data.device, torch.complex64)
        empty = (data == 0).flatten(1).all(dim=1)
        known = None if noise_std is None else torch.full((len(data),), noise_std).to(data.device)
        # The mask of other operators is not one of k-space.
        mask = operator.mask if isinstance(operator, CartesianSense | SoftSense) else None
        return cls(data, operator, empty, mask, operator.coil_maps, known)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.y)

    def __getitem__(self, slices: int | slice | Sequence[int] | Tensor) -> Measurement:
        """The measurement of some slices, each as often as its index is given.

        Sets of coil maps that are zero in all of them are left out.
        """
        index = torch.arange(len(self), device=self.y.device)[slices].reshape(-1)

        def pick(value: Tensor | None) -> Tensor | None:
            return value if value is None or len(value) == 1 else value[index]

        mask, maps, operator = self.mask, self.coil_maps, self.operator
        if operator.domain_shape[0] > 1:
            mask, maps, operator = pick(mask), pick(maps), operator[index]
            if isinstance(operator, SoftSense):
                number = int(_used_sets(operator.coil_maps).amax())
                if number < operator.coil_maps.shape[1]:
                    sets = operator.coil_maps
                    maps = sets[:, 0] if number == 1 else sets[:, :number]
                    operator = sense_operator(operator.mask, maps)
        noise_std = None if self.noise_std is None else self.noise_std[index]
        return Measurement(self.y[index], operator, self.empty[index], mask, maps, noise_std)

    def to(self, device: torch.device | str) -> Measurement:
        """The measurement on another device; itself if it is there."""
        if self.y.device == torch.device(device):
            return self
        mask, maps, noise_std = (
            None if value is None else value.to(device)
            for value in (self.mask, self.coil_maps, self.noise_std)
        )
        return Measurement(
            self.y.to(device),
            self.operator.to(device),
            self.empty.to(device),
            mask,
            maps,
            noise_std,
        )

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of a slice's image, whatever the number of sets of coil maps."""
        return image_shape(self.operator)

    @property
    def number_of_sets(self) -> Tensor:
        """How many sets of coil maps each slice has that are not zero, ``(batch,)``."""
        if isinstance(self.operator, SoftSense):
            return _used_sets(self.operator.coil_maps).expand(len(self))
        return torch.ones(len(self), dtype=torch.long, device=self.y.device)

    @property
    def filled(self) -> Tensor:
        """Indices of the slices that hold signal; the others are left out of all work."""
        return (~self.empty).nonzero()[:, 0]

    def combine(self, images: Tensor) -> Tensor:
        """``(batch, ny, nx)`` of images whose sets lie one below the other; others as they are."""
        ny, _ = self.image_shape
        return images if images.shape[1] == ny else combine_sets(images.unflatten(1, (-1, ny)))

    def intensity_scale(self) -> Tensor:
        """The scale of a CG-SENSE image of 8 iterations of each slice, ``(batch,)``; 1 if empty."""
        filled = self.filled
        scale = torch.ones(len(self), device=self.y.device)
        if len(filled) == 0:
            return scale
        part = self[filled] if len(filled) < len(self) else self
        image = conjugate_gradient(
            part.operator.normal, part.operator.adjoint(part.y), num_iterations=_SCALE_ITERATIONS
        )
        scale[filled] = intensity_scale(part.combine(image))
        return scale

    def normalized(self) -> tuple[Measurement, Tensor]:
        """The same images to be found from coil maps with ``max Σ_c |S_c|² = 1``.

        Solvers and networks weigh the data for such maps. ``A x = y`` and ``(A/g) x = y/g`` have
        the same solution, so maps in other units, or ones for every coil, only need both divided.

        Returns:
            The measurement, and what y was divided by, ``(batch or 1,)``.
        """
        if self.coil_maps is None or self.mask is None:
            return self, torch.ones(1, device=self.y.device)
        gain = maps_gain(self.coil_maps)
        if bool((gain == 1).all()):
            return self, gain
        maps = self.coil_maps / gain[(...,) + (None,) * (self.coil_maps.ndim - 1)]
        operator = sense_operator(self.mask, maps)
        y = self.y / gain[:, None, None, None]
        noise_std = None if self.noise_std is None else self.noise_std / gain
        return replace(self, y=y, coil_maps=maps, operator=operator, noise_std=noise_std), gain


def prepare_measurement(
    kspace: ArrayLike | Measurement,
    mask: ArrayLike | None = None,
    coil_maps: ArrayLike | None = None,
    *,
    operator: LinearOperator | None = None,
    noise_std: float | None = None,
) -> Measurement:
    """The measurement that a pipeline's call gives, in whichever of the three forms.

    Args:
        kspace: k-space for :meth:`Measurement.from_arrays`; the data of ``operator`` for
            :meth:`Measurement.from_operator`; or a measurement, which is returned as it is.
        mask: where k-space was sampled.
        coil_maps: of k-space on a grid.
        operator: ``A``, where it is another one than ``M F S``.
        noise_std: of the noise of a complex sample, where the scanner measured it.

    Raises:
        InputError: for anything malformed, in a sentence of its own.
    """
    if isinstance(kspace, Measurement):
        if mask is not None or coil_maps is not None or operator is not None:
            raise InputError(
                "a measurement holds its operator, mask and coil maps: leave them out, or give "
                "k-space"
            )
        return kspace
    if operator is None:
        return Measurement.from_arrays(kspace, mask, coil_maps, noise_std=noise_std)
    if not isinstance(operator, LinearOperator):
        raise InputError(
            f"expected operator as a LinearOperator, got {type(operator).__name__}: see "
            "ctxrecon.operators"
        )
    if mask is not None or coil_maps is not None:
        raise InputError("an operator holds its mask and coil maps: leave them out")
    return Measurement.from_operator(operator, kspace, noise_std=noise_std)


def count_slices(kspace: ArrayLike | Measurement, operator: LinearOperator | None = None) -> int:
    """Number of slices of what a pipeline's call gives, before it has been checked."""
    if isinstance(kspace, Measurement):
        return len(kspace)
    shape = tuple(getattr(kspace, "shape", ()))
    if operator is not None:
        echoes = len(operator.operators) if isinstance(operator, MultiEcho) else 1
        return (shape[0] if shape else 1) * echoes
    if len(shape) == 4 and shape[0] == 0:
        raise InputError(f"expected at least one slice, got k-space of the empty shape {shape}")
    return shape[0] if len(shape) == 4 else 1


def maps_gain(coil_maps: Tensor) -> Tensor:
    """``√max Σ_c |S_c|²`` of each slice's maps, ``(batch,)``; 1 where they are normalized or zero.

    Another value is logged.
    """
    peak = coil_maps.abs().flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0)
    relative = coil_maps.abs() / peak[(...,) + (None,) * (coil_maps.ndim - 1)]
    energy = relative.square().sum(dim=-3).flatten(1).amax(dim=1)
    gain = peak * energy.sqrt()
    known = ((gain - 1).abs() <= _NEARLY_NORMALIZED) | (energy == 0)
    if not bool(known.all()):
        logger.info(
            "the coil maps have a root sum of squares of up to %.3g: they and k-space are divided "
            "by it",
            float(gain.amax()),
        )
    return torch.where(known, 1.0, gain)


def _used_sets(maps: Tensor) -> Tensor:
    used = (maps != 0).flatten(2).any(dim=2)
    index = torch.arange(1, maps.shape[1] + 1, device=maps.device)
    return (used * index).amax(dim=1).clamp_min(1)


def _check_not_all_outside(y: Tensor, inside: Tensor) -> None:
    """Refuse slices whose samples all lie outside the mask."""
    there, kept = ((each != 0).flatten(1).any(dim=1) for each in (y, inside))
    lost = there & ~kept
    if bool(lost.any()):
        raise InputError(
            f"k-space of slice {int(lost.nonzero()[0])} is zero everywhere inside the mask: "
            "give the mask that it was measured with"
        )


def _infer_mask(y: Tensor) -> Tensor:
    sampled = (y != 0).any(dim=1, keepdim=True)
    # Of a slice of zeros nothing is known; its image is zero whatever was sampled.
    sampled |= ~sampled.flatten(1).any(dim=1)[:, None, None, None]
    fraction = float(sampled.float().mean())
    logger.info(
        "no mask given: the samples that are not zero are taken as sampled (%.1f %%)",
        100.0 * fraction,
    )
    return sampled


def _check_data(y: Tensor, operator: LinearOperator) -> None:
    """Refuse data that do not fit an operator on images ``(batch, ny, nx)``."""
    if len(operator.domain_shape) != 3:
        raise InputError(
            "expected an operator on images (batch, ny, nx), got one on the domain "
            f"{tuple(operator.domain_shape)}"
        )
    batch, *rest = operator.range_shape
    if y.ndim != 1 + len(rest) or list(y.shape[1:]) != rest or batch not in (1, len(y)):
        raise InputError(
            f"expected data of the operator's range ({batch if batch > 1 else 'any batch'}, "
            f"{', '.join(map(str, rest))}), got shape {tuple(y.shape)}"
        )
    if not y.is_complex():
        raise InputError(f"expected complex data, got {y.dtype}: their phase is needed")
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise InputError("the data hold NaN or infinite values: find out where they come from")
