"""Multi-coil MRI operator for arbitrary k-space trajectories, such as radial and spiral."""

from __future__ import annotations

import importlib
import logging
import math
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators._checks import check_complex64
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze

logger = logging.getLogger(__name__)

_PRECISION = 1e-6
"""Relative precision of the NUFFT, a few roundings of complex64."""
_KERNEL_PRECISION = 1e-9
"""Precision of the Toeplitz kernel, higher because it is computed once and applied often."""


class NonCartesianSense(LinearOperator):
    r"""Non-Cartesian multi-coil operator ``A = W^½ F_k S``.

    .. math::

        (A x)_{c,j} = \sqrt{\frac{w_j}{n_y n_x}}
            \sum_r S_c(r)\, x(r)\, e^{-i k_j \cdot r}

    with coil maps S, the Fourier transform at the samples of a trajectory, weights W and pixels
    ``r`` counted from ``n // 2``. With this orthonormal scaling the trajectory of a full Cartesian
    grid, ``k = 2π (j − n//2) / n``, yields the k-space of :class:`CartesianSense`.

    :meth:`forward` and :meth:`adjoint` are non-uniform FFTs (Barnett, Magland and af Klinteberg,
    SIAM J. Sci. Comput. 41, C479, 2019; arXiv:1808.06736) in double precision, with a relative
    error of 1e-6. They use the package finufft on the CPU, and on CUDA cufinufft if installed, or
    else the CPU, which is logged. (Calls of cufinufft are tested with a stand-in, not on a GPU.)
    :meth:`normal`, which solvers iterate, needs no NUFFT: ``F_kᴴ W F_k`` is Toeplitz, hence a
    convolution by FFTs of twice the size on the device of the coil maps (Fessler et al., IEEE
    Trans. Signal Process. 53, 3393, 2005). It agrees with ``adjoint(forward(x))`` to a relative
    2e-6. Gradients reach ``x``, ``y`` and the coil maps, but not the trajectory.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import NonCartesianSense
        >>> axis = torch.linspace(-torch.pi, torch.pi, 9)[:-1]
        >>> maps = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
        >>> operator = NonCartesianSense(torch.cartesian_prod(axis, axis), maps)
        >>> operator(torch.ones(1, 8, 8, dtype=torch.complex64)).shape
        torch.Size([1, 1, 64])

    Args:
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel, each in [−π, π], as in NUFFT libraries: cycles per field of view times
            ``2π / n``. It applies to the whole batch.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64; ones for a single
            coil.
        density_compensation: Weights ``w`` of shape ``(shots·samples,)``, real and not negative:
            the k-space area of each sample, 1 on a Cartesian grid; ``None`` for no weights. With
            weights, least squares counts areas instead of samples and needs fewer iterations, but
            is noisier than optimal for white noise. Pass measured k-space through
            :meth:`compensate` once. If the weights sum to ``ny·nx``, a data weight has the same
            meaning as for a full Cartesian scan; with the weights of
            :func:`~ctxrecon.operators.density_compensation`, as for an undersampled one.

    Raises:
        InputError: If finufft is not installed, or the trajectory, coil maps or weights have the
            wrong type, shape or range.
    """

    _batched = ("coil_maps",)

    trajectory: Tensor
    coil_maps: Tensor
    density_compensation: Tensor | None
    _root_weights: Tensor

    def __init__(
        self,
        trajectory: Tensor,
        coil_maps: Tensor,
        density_compensation: Tensor | None = None,
    ) -> None:
        _check_trajectory(trajectory)
        _check_coil_maps(coil_maps)
        _nufft(coil_maps.device)
        weights = density_compensation
        if weights is not None:
            _check_weights(weights, len(trajectory))
            weights = weights.detach().clone()
        scale = torch.ones(len(trajectory)) if weights is None else weights.sqrt()
        freeze(
            self,
            trajectory=trajectory.detach().to(coil_maps.device, torch.float64, copy=True),
            coil_maps=coil_maps.clone(memory_format=torch.contiguous_format),
            density_compensation=weights,
            _root_weights=scale.to(coil_maps.device, torch.float32),
        )

    @property
    def _image_shape(self) -> tuple[int, int]:
        ny, nx = self.coil_maps.shape[-2:]
        return ny, nx

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return (self.coil_maps.shape[0], *self._image_shape)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, coils, shots·samples)``."""
        return (*self.coil_maps.shape[:2], len(self.trajectory))

    @property
    def device(self) -> torch.device:
        """Device of the coil maps."""
        return self.coil_maps.device

    def compensate(self, kspace: Tensor) -> Tensor:
        """Return ``W^½ kspace``, measured ``(batch, coils, shots·samples)`` scaled like ``A x``.

        Without ``density_compensation`` the samples are unchanged.
        """
        check_complex64(kspace, self.range_shape, "k-space")
        return self._root_weights * kspace

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``W^½ F_k S``, from ``(batch, ny, nx)`` to ``(batch, coils, shots·samples)``."""
        check_complex64(x, self.domain_shape, "an image")
        coil_images = self.coil_maps * x[:, None]
        samples = _ImagesToSamples.apply(coil_images.flatten(0, 1), self.trajectory)
        return self._root_weights * samples.unflatten(0, coil_images.shape[:2])

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Sᴴ F_kᴴ W^½``, from ``(batch, coils, shots·samples)`` to ``(batch, ny, nx)``."""
        check_complex64(y, self.range_shape, "k-space")
        samples = (self._root_weights * y).flatten(0, 1)
        coil_images = _SamplesToImages.apply(samples, self.trajectory, self._image_shape)
        return (self.coil_maps.conj() * coil_images.unflatten(0, y.shape[:2])).sum(dim=1)

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``Sᴴ F_kᴴ W F_k S``, ``(batch, ny, nx)``, by Toeplitz embedding."""
        check_complex64(x, self.domain_shape, "an image")
        ny, nx = self._image_shape
        result = torch.zeros_like(x)
        # One coil at a time: padded spectra of all coils would take four times their images.
        for coil_map in self.coil_maps.unbind(dim=1):
            spectrum = torch.fft.fft2(coil_map * x, s=(2 * ny, 2 * nx)) * self._transfer
            convolved = torch.fft.ifft2(spectrum)[..., :ny, :nx]
            result = torch.addcmul(result, coil_map.conj(), convolved)
        return result

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖A x‖²`` of each sample, ``(batch,)``, with half the FFTs of :meth:`normal`."""
        check_complex64(x, self.domain_shape, "an image")
        ny, nx = self._image_shape
        total = torch.zeros(len(x), device=x.device)
        for coil_map in self.coil_maps.unbind(dim=1):
            spectrum = torch.view_as_real(torch.fft.fft2(coil_map * x, s=(2 * ny, 2 * nx)))
            total = total + (self._transfer[..., None] * spectrum.square()).flatten(1).sum(dim=1)
        return (total / (4 * ny * nx)).clamp_min(0)

    @cached_property
    def _transfer(self) -> Tensor:
        """Spectrum of the circular convolution that embeds ``F_kᴴ W F_k``, ``(2ny, 2nx)``.

        The kernel ``q(d) = Σ_j w_j exp(i k_j·d) / (ny·nx)`` is Hermitian, ``q(−d) = q(d)*``, except
        at distances of ``−n``, which no two pixels have. The spectrum may therefore be real.
        """
        ny, nx = self._image_shape
        weights = self._root_weights.double().square().to(torch.complex128)
        kernel = _samples_to_images(
            weights[None], self.trajectory, (2 * ny, 2 * nx), _KERNEL_PRECISION
        )[0]
        # The NUFFT scales for its 2ny x 2nx grid: 1 / √(4 ny nx) instead of 1 / (ny nx).
        spectrum = torch.fft.fft2(torch.fft.ifftshift(kernel)).real * (2 / math.sqrt(ny * nx))
        return spectrum.to(self.coil_maps.device, torch.float32)


class _ImagesToSamples(torch.autograd.Function):
    """Type-2 NUFFT from ``(n, ny, nx)`` to ``(n, samples)``; its gradient is the adjoint."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, trajectory: Tensor) -> Tensor:
        ctx.trajectory, ctx.shape = trajectory, tuple(images.shape[1:])
        return _images_to_samples(images, trajectory, _PRECISION).to(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SamplesToImages.apply(gradients[0], ctx.trajectory, ctx.shape), None


class _SamplesToImages(torch.autograd.Function):
    """Type-1 NUFFT from ``(n, samples)`` to ``(n, ny, nx)``, the adjoint of the type-2 NUFFT."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.trajectory = trajectory
        return _samples_to_images(samples, trajectory, shape, _PRECISION).to(samples)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _ImagesToSamples.apply(gradients[0], ctx.trajectory), None, None


def _images_to_samples(images: Tensor, trajectory: Tensor, precision: float) -> Tensor:
    """Return ``Σ_r x(r) exp(−i k·r) / √(ny·nx)``, complex128."""
    nufft = _nufft(images.device)
    places, values, options = _arguments(nufft, images, trajectory)
    samples = nufft.nufft2d2(*places, values, eps=precision, isign=-1, **options)
    scale = math.sqrt(math.prod(images.shape[1:]))
    return torch.as_tensor(samples).reshape(len(images), -1) / scale


def _samples_to_images(
    samples: Tensor, trajectory: Tensor, shape: tuple[int, int], precision: float
) -> Tensor:
    """Return ``Σ_j y_j exp(i k_j·r) / √(ny·nx)``, complex128."""
    nufft = _nufft(samples.device)
    places, values, options = _arguments(nufft, samples, trajectory)
    images = nufft.nufft2d1(*places, values, n_modes=shape, eps=precision, isign=1, **options)
    return torch.as_tensor(images).reshape(len(samples), *shape) / math.sqrt(math.prod(shape))


def _nufft(device: torch.device) -> ModuleType:
    """Return the NUFFT package for a device; cufinufft has the interface of finufft."""
    if device.type == "cuda":
        try:
            return importlib.import_module("cufinufft")
        except (ImportError, OSError):  # not installed, or its CUDA libraries are missing
            _say_through_cpu()
    try:
        return importlib.import_module("finufft")
    except ImportError as error:
        raise InputError(
            "NonCartesianSense needs the package finufft: install it with pip install finufft"
        ) from error


def _arguments(
    nufft: ModuleType, values: Tensor, trajectory: Tensor
) -> tuple[tuple[Any, Any], Any, dict[str, Any]]:
    """Return coordinates, values and options for a NUFFT: tensors on CUDA, arrays on the CPU."""
    values = values.detach().to(torch.complex128).resolve_conj().contiguous()
    if nufft.__name__ == "cufinufft":
        ky, kx = (each.contiguous() for each in trajectory.to(values.device).T)
        # Use torch's device and stream, so that neither library waits for the other.
        stream = torch.cuda.current_stream(values.device)
        options = {"gpu_device_id": stream.device_index, "gpu_stream": stream.cuda_stream}
        return (ky, kx), values, options
    ky, kx = trajectory.cpu().T.contiguous().numpy()
    return (ky, kx), values.cpu().numpy(), {"nthreads": torch.get_num_threads()}


@cache
def _say_through_cpu() -> None:
    logger.info(
        "non-uniform FFTs of CUDA tensors run on the CPU: pip install cufinufft to avoid this"
    )


def _check_trajectory(trajectory: Tensor) -> None:
    if not isinstance(trajectory, Tensor) or not trajectory.is_floating_point():
        kind = trajectory.dtype if isinstance(trajectory, Tensor) else type(trajectory).__name__
        raise InputError(f"expected the trajectory as a real torch tensor, got {kind}")
    if trajectory.ndim != 2 or trajectory.shape[1] != 2 or len(trajectory) < 1:
        raise InputError(
            "expected a trajectory of shape (shots·samples, 2) with columns (ky, kx), got "
            f"{tuple(trajectory.shape)}; reshape it"
        )
    largest = float(trajectory.abs().max())  # NaN if any value is
    if not largest <= math.pi * (1 + 1e-6):
        raise InputError(
            "expected a trajectory in radians per pixel, from -π to π, got values of up to "
            f"{largest:g}; multiply cycles per field of view by 2π / n"
        )


def _check_coil_maps(coil_maps: Tensor) -> None:
    if not isinstance(coil_maps, Tensor) or coil_maps.dtype != torch.complex64:
        kind = coil_maps.dtype if isinstance(coil_maps, Tensor) else type(coil_maps).__name__
        raise InputError(f"expected the coil maps as a complex64 torch tensor, got {kind}")
    if coil_maps.ndim != 4 or coil_maps.numel() == 0:
        raise InputError(
            "expected coil maps of shape (batch or 1, coils, ny, nx), got "
            f"{tuple(coil_maps.shape)}; pass ones (1, 1, ny, nx) for a single coil"
        )
    if not bool(torch.isfinite(torch.view_as_real(coil_maps)).all()):
        raise InputError("the coil maps contain NaN or infinite values: estimate them again")


def _check_weights(weights: Tensor, num_samples: int) -> None:
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        kind = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise InputError(f"expected density_compensation as a real torch tensor, got {kind}")
    if tuple(weights.shape) != (num_samples,):
        raise InputError(
            f"expected density_compensation of shape ({num_samples},), one weight for each "
            f"sample of the trajectory, got {tuple(weights.shape)}"
        )
    usable = bool(torch.isfinite(weights).all()) and bool((weights >= 0).all())
    if not usable or not bool(weights.any()):
        raise InputError(
            "expected density_compensation with finite weights, none negative and not all zero: "
            "compute them again"
        )
