"""SigPy's compressed-sensing applications on one slice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sigpy_image(
    app: str,
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    weight: float,
    iterations: int,
    **more: Any,
) -> Tensor:
    """Reconstruct one slice on the CPU.

    Args:
        app: Name in ``sigpy.mri.app``, such as "L1WaveletRecon".
        kspace: Undersampled k-space of shape ``(1, coils, ny, nx)``.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.
        maps: Coil maps of the shape of ``kspace``.
        weight: Regularization weight.
        iterations: Number of iterations.
        **more: Further options of the application.

    Returns:
        Image of shape ``(1, ny, nx)``.
    """
    from sigpy.mri import app as apps

    image = getattr(apps, app)(
        kspace[0].numpy(),
        maps[0].numpy(),
        weight,
        weights=mask[0].float().numpy(),
        max_iter=iterations,
        show_pbar=False,
        **more,
    ).run()
    return torch.from_numpy(image)[None]
