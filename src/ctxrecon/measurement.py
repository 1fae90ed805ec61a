"""Validated measurements ``y = A x + n``, the common input of all reconstruction methods."""

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
# Maps from any estimator count as normalized within this distance of a root sum of squares of 1.
_NEARLY_NORMALIZED = 0.02


@dataclass(frozen=True)
class Measurement:
    """A validated measurement ``y = A x + n`` on one device.

    Attributes:
        y: Measured data, complex64: for Cartesian k-space ``(batch, coils, ny, nx)`` and zero
            outside the mask, for other operators their ``range_shape``.
        operator: Forward operator ``A``, from images of shape ``(batch or 1, ny, nx)``.
        empty: Flags of slices without signal (zeros, or only noise), shape ``(batch,)``, bool.
            Their coil maps are the same for every coil.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool; ``None`` if ``A`` has none.
        coil_maps: Coil maps of shape ``(batch or 1, [sets,] coils, ny, nx)``, complex64; ``None``
            if ``A`` has none.
        noise_std: Standard deviation of the noise of a complex sample as measured by the scanner,
            in the units of ``y``, shape ``(batch,)``; ``None`` if it was not measured.

    Example:
        >>> import torch
        >>> from ctxrecon import Measurement
        >>> kspace = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> measurement = Measurement.from_arrays(kspace, torch.ones(32))
        >>> measurement.y.shape, measurement.image_shape
        (torch.Size([1, 1, 32, 32]), (32, 32))
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
        """Build a measurement from Cartesian k-space, a sampling mask and coil maps, ``A = M F S``.

        If the data seem to follow another convention, a warning with the remedy is logged; see
        :func:`ctxrecon.plausibility.check_conventions`. Slices without signal, such as air at the
        ends of a volume, stay in the batch; see :func:`ctxrecon.emptiness.find_empty`.

        Args:
            kspace: Complex k-space ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or, for a single
                coil, ``(ny, nx)``, with zero frequency at ``n // 2``; NumPy or torch.
            mask: Sampling mask of shape ``(nx,)`` (lines), ``(ny, nx)``, ``(batch or 1, ny, nx)``
                or ``(batch or 1, 1, ny, nx)``, bool or 0 and 1. ``None`` infers it from non-zero
                samples. This is logged, as are samples outside a given mask, which are set to zero.
            coil_maps: Complex coil maps ``(coils, ny, nx)``, ``(batch or 1, coils, ny, nx)`` or,
                for orthonormal sets, ``(batch or 1, sets, coils, ny, nx)``. ``None`` estimates
                them from the autocalibration region of ``kspace``, with two sets if the field of
                view is smaller than the object. A single coil needs none.
            calibration: Fully sampled center of k-space from a separate scan with the same field
                of view, complex, ``(coils, cy, cx)`` or ``(batch or 1, coils, cy, cx)``. If given,
                coil maps are estimated from it.
            noise_std: Noise standard deviation of a complex sample, if the scanner measured it.

        Raises:
            InputError: If an array has the wrong type or shape or values that are not finite, if
                the mask does not fit the k-space, or if the coil maps cannot be estimated.
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
                logger.info("two sets of coil maps are used, which fit the data better than one")
            empty = empty | (maps == 0).flatten(1).all(dim=1)
        measured = None if noise_std is None else torch.full((batch,), noise_std, device=y.device)
        return cls(y, sense_operator(sampled, maps), empty, sampled, maps, measured)

    @classmethod
    def from_scan(cls, scan: Scan) -> Measurement:
        """Build a measurement from a scan, with :meth:`from_arrays` or :func:`sense_along`.

        Raises:
            InputError: If the slices have different trajectories, or the data are invalid.
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
                "the slices have different trajectories: build one measurement per slice, scan[i]"
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
        """Build a measurement for any linear operator, such as inpainting.

        Args:
            operator: Forward operator ``A``, from images ``(batch or 1, ny, nx)``. The contrasts of
                each slice of a :class:`~ctxrecon.operators.MultiEcho` become consecutive slices.
            y: Complex data of the operator's ``range_shape``, NumPy or torch.
            noise_std: Standard deviation of the noise of a complex sample, if known.

        Raises:
            InputError: If the data do not fit the operator, or are not finite.
        """
        data = as_tensor(y, "the measurement")
        if isinstance(operator, MultiEcho):
            operator = operator.folded(len(data))
            data = data.flatten(0, 1)
        _check_data(data, operator)
        data = data.to(operator.device or data.device, torch.complex64)
        empty = (data == 0).flatten(1).all(dim=1)
        known = None if noise_std is None else torch.full((len(data),), noise_std).to(data.device)
        # The masks of other operators are not k-space masks.
        mask = operator.mask if isinstance(operator, CartesianSense | SoftSense) else None
        return cls(data, operator, empty, mask, operator.coil_maps, known)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.y)

    def __getitem__(self, slices: int | slice | Sequence[int] | Tensor) -> Measurement:
        """Return the measurement of some slices; an index may occur several times.

        Trailing sets of coil maps that are zero in all selected slices are dropped.
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
        """Return the measurement on another device, or itself if it is already there."""
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
        """Size ``(ny, nx)`` of a slice's image, also for several sets of coil maps."""
        return image_shape(self.operator)

    @property
    def number_of_sets(self) -> Tensor:
        """Number of non-zero sets of coil maps of each slice, shape ``(batch,)``."""
        if isinstance(self.operator, SoftSense):
            return _used_sets(self.operator.coil_maps).expand(len(self))
        return torch.ones(len(self), dtype=torch.long, device=self.y.device)

    @property
    def filled(self) -> Tensor:
        """Indices of the slices with signal; reconstruction skips the others."""
        return (~self.empty).nonzero()[:, 0]

    def combine(self, images: Tensor) -> Tensor:
        """Combine images whose sets are stacked along ``ny``; return others unchanged."""
        ny, _ = self.image_shape
        return images if images.shape[1] == ny else combine_sets(images.unflatten(1, (-1, ny)))

    def intensity_scale(self) -> Tensor:
        """Compute the scale of an 8-iteration CG-SENSE image, ``(batch,)``; 1 if empty."""
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
        """Return an equivalent measurement with coil maps of ``max Σ_c |S_c|² = 1``.

        Solvers and networks weight the data for such maps. ``A x = y`` and ``(A/g) x = y/g`` have
        the same solution, so maps in other units only require both to be divided by ``g``.

        Returns:
            The measurement, and the divisor of ``y`` of shape ``(batch or 1,)``.
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
    """Build the measurement for a pipeline's arguments, which have one of three forms.

    Args:
        kspace: K-space for :meth:`Measurement.from_arrays`; data of ``operator`` for
            :meth:`Measurement.from_operator`; or a measurement, which is returned unchanged.
        mask: Sampling mask of Cartesian k-space.
        coil_maps: Coil maps of Cartesian k-space.
        operator: Forward operator ``A``, if it is not ``M F S``.
        noise_std: Standard deviation of the noise of a complex sample, if the scanner measured it.

    Raises:
        InputError: If the arguments are invalid, or the mask or the coil maps are given twice.
    """
    if isinstance(kspace, Measurement):
        if mask is not None or coil_maps is not None or operator is not None:
            raise InputError(
                "a measurement contains its operator, mask and coil maps: leave them out, or give "
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
        raise InputError("an operator contains its mask and coil maps: leave them out")
    return Measurement.from_operator(operator, kspace, noise_std=noise_std)


def count_slices(kspace: ArrayLike | Measurement, operator: LinearOperator | None = None) -> int:
    """Return the number of slices of a pipeline's arguments before they have been validated."""
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
    """Compute ``√max Σ_c |S_c|²`` of each slice's maps, ``(batch,)``; 1 if normalized or zero.

    Other values are logged.
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
    """Validate that no slice has all its samples outside the mask."""
    there, kept = ((each != 0).flatten(1).any(dim=1) for each in (y, inside))
    lost = there & ~kept
    if bool(lost.any()):
        raise InputError(
            f"k-space of slice {int(lost.nonzero()[0])} is zero everywhere inside the mask: "
            "give the mask of this scan"
        )


def _infer_mask(y: Tensor) -> Tensor:
    sampled = (y != 0).any(dim=1, keepdim=True)
    # An all-zero slice shows no mask; its image is zero whichever mask is used.
    sampled |= ~sampled.flatten(1).any(dim=1)[:, None, None, None]
    fraction = float(sampled.float().mean())
    logger.info(
        "no mask given: samples that are not zero are assumed to be measured (%.1f %%)",
        100.0 * fraction,
    )
    return sampled


def _check_data(y: Tensor, operator: LinearOperator) -> None:
    """Validate that data fit an operator on images ``(batch, ny, nx)``."""
    if len(operator.domain_shape) != 3:
        raise InputError(
            "expected an operator on images (batch, ny, nx), got one on the domain "
            f"{tuple(operator.domain_shape)}"
        )
    batch, *rest = operator.range_shape
    if y.ndim != 1 + len(rest) or list(y.shape[1:]) != rest or batch not in (1, len(y)):
        raise InputError(
            f"expected data in the operator's range ({batch if batch > 1 else 'any batch'}, "
            f"{', '.join(map(str, rest))}), got shape {tuple(y.shape)}"
        )
    if not y.is_complex():
        raise InputError(f"expected complex data, got {y.dtype}: the phase is required")
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise InputError("the data contain NaN or infinite values: check how they were computed")
