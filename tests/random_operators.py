"""Random operators of every kind, most of them singular, with float64 references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from gaussian import complex_noise, seeded
from torch import Tensor

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.operators import (
    CartesianSense,
    Inpainting,
    LinearOperator,
    SoftSense,
    SuperResolution,
)

MAP_KINDS = ("none", "ones", "equal", "air", "smooth", "noise")
OTHER_KINDS = ("soft_sense", "inpainting", "super_resolution")
_ACCELERATIONS = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class Case:
    """An operator with a noisy measurement of an image of a few discs."""

    name: str
    operator: LinearOperator
    y: Tensor
    image: Tensor

    @property
    def is_scan(self) -> bool:
        """True if pipelines accept the operator."""
        return isinstance(self.operator, CartesianSense)


def random_case(seed: int) -> Case:
    """The case of a seed: kinds in turn, everything else by chance."""
    generator = seeded(seed)

    def pick(options: tuple[float, ...]) -> float:
        return options[int(torch.randint(len(options), (), generator=generator))]

    ny, nx = (int(n) for n in torch.randint(16, 65, (2,), generator=generator))
    kinds = (*MAP_KINDS, *MAP_KINDS, *OTHER_KINDS)
    kind = kinds[seed % len(kinds)]
    if kind == "super_resolution":
        ny, nx = ny - ny % 2, nx - nx % 2
    names = list(MASKS)
    name = names[seed // len(kinds) % len(names)]
    acceleration = float(pick(_ACCELERATIONS))
    if acceleration == 1:
        mask = torch.ones(1, 1, ny, nx, dtype=torch.bool)
    else:
        mask = make_mask(name, (ny, nx), acceleration, generator=generator)
    coils = 1 if kind == "none" else int(torch.randint(1, 9, (), generator=generator))
    operator = _operator(kind, mask, coils, generator)
    image = _discs((operator.domain_shape[1], nx), generator)
    y = operator(image)
    y = y + 0.01 * y.abs().square().mean().sqrt() * complex_noise(tuple(y.shape), generator)
    if not isinstance(operator, SuperResolution):
        y = y.masked_fill(~mask[:, 0] if y.ndim == 3 else ~mask, 0)
    units = 10.0 ** float(pick((-18, -9, -3, 0, 3, 9, 17)))
    label = f"{seed}: {kind}, {name} ×{acceleration:g}, {coils} coils, {ny}x{nx}, units {units:g}"
    return Case(label, operator, y * units, image * units)


def normal64(operator: LinearOperator) -> tuple[Callable[[Tensor], Tensor], Callable]:
    """Return independent implementations of ``AᴴA`` and ``Aᴴ`` in complex128."""

    def fft(x: Tensor, inverse: bool = False) -> Tensor:
        transform = torch.fft.ifft2 if inverse else torch.fft.fft2
        axes = (-2, -1)
        return torch.fft.fftshift(
            transform(torch.fft.ifftshift(x, dim=axes), norm="ortho"), dim=axes
        )

    if isinstance(operator, Inpainting):
        known = operator.mask[:, 0]
        return (lambda x: x * known), (lambda y: y * known)
    if isinstance(operator, SuperResolution):
        _, ny, nx = operator.domain_shape
        _, sy, sx = operator.range_shape
        rows = slice(ny // 2 - sy // 2, ny // 2 - sy // 2 + sy)
        columns = slice(nx // 2 - sx // 2, nx // 2 - sx // 2 + sx)
        window = torch.zeros(ny, nx, dtype=torch.bool)
        window[rows, columns] = True

        def adjoint(y: Tensor) -> Tensor:
            padded = torch.zeros(len(y), ny, nx, dtype=torch.complex128)
            padded[:, rows, columns] = fft(y)
            return fft(padded, inverse=True)

        return (lambda x: fft(fft(x) * window, inverse=True)), adjoint
    assert isinstance(operator, CartesianSense | SoftSense)
    mask, maps = operator.mask, operator.coil_maps
    if maps is None:
        maps = torch.ones(1, 1, 1, 1)
    sets = (maps if maps.ndim == 5 else maps[:, None]).to(torch.complex128)

    def combined(y: Tensor) -> Tensor:
        images = fft(y * mask, inverse=True)[:, None]
        return (sets.conj() * images).sum(dim=2).flatten(1, 2)

    def normal(x: Tensor) -> Tensor:
        return combined(fft((sets * x.unflatten(1, (sets.shape[1], -1))[:, :, None]).sum(dim=1)))

    return normal, combined


def conjugate_gradient64(
    normal: Callable[[Tensor], Tensor], rhs: Tensor, num_iterations: int
) -> Tensor:
    """The textbook's recursion for one sample, which stops where it has converged."""
    x, residual = torch.zeros_like(rhs), rhs
    direction, energy = residual, float(rhs.abs().square().sum())
    stop = 1e-16 * energy
    for _ in range(num_iterations):
        if energy <= stop:
            break
        image = normal(direction)
        step = energy / float((direction.conj() * image).sum().real)
        x, residual = x + step * direction, residual - step * image
        previous, energy = energy, float(residual.abs().square().sum())
        direction = residual + energy / previous * direction
    return x


def _operator(kind: str, mask: Tensor, coils: int, generator: torch.Generator) -> LinearOperator:
    shape = (mask.shape[-2], mask.shape[-1])
    if kind == "none":
        return CartesianSense(mask, None)
    if kind == "inpainting":
        return Inpainting(mask)
    if kind == "super_resolution":
        return SuperResolution((1, *shape), 2)
    ones = torch.ones(1, coils, *shape, dtype=torch.complex64)
    if kind == "ones":
        return CartesianSense(mask, ones)
    if kind == "equal":
        weights = complex_noise((1, coils, 1, 1), generator)
        return CartesianSense(mask, weights / weights.norm() * ones)
    smooth = simulate_coil_maps(coils, shape, generator=generator)
    if kind == "soft_sense":
        return SoftSense(mask, torch.stack([smooth, smooth], dim=1) / 2**0.5)
    if kind == "air":
        y, x = (torch.linspace(-1, 1, n) for n in shape)
        return CartesianSense(mask, smooth * (y[:, None] ** 2 + x**2 < 0.6))
    if kind == "noise":
        noise = complex_noise((1, coils, *shape), generator)
        smooth = noise / noise.abs().square().sum(1, keepdim=True).sqrt()
    return CartesianSense(mask, smooth)


def _discs(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    image = torch.zeros(1, *shape, dtype=torch.complex64)
    for _ in range(4):
        cy, cx, r, value = torch.rand(4, generator=generator).tolist()
        inside = (y[:, None] - cy + 0.5) ** 2 + (x - cx + 0.5) ** 2 < (0.2 + 0.5 * r) ** 2
        phase = torch.exp(1j * 2 * (y[:, None] * cx + x * cy))
        image = image + (0.2 + value) * inside * phase
    return image
