"""Prepared sets of people's magnitude images, simulated by the phantom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ctxrecon.datasets import write_shard
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import phantom_scan


def write_people(
    folder: Path, people: Mapping[str, Sequence[str]], size: int, *, each: int = 6
) -> None:
    """Write noisy brains as ``ctxrecon prepare images`` does.

    Args:
        folder: Folder of the set.
        people: People with images of each contrast.
        size: Matrix size.
        each: Number of slices of each person and contrast.
    """
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    for contrast, names in people.items():
        subjects = [name for name in names for _ in range(each)]
        images = []
        for _ in subjects:
            scan = phantom_scan("brain", contrast=contrast, shape=(size, size), generator=generator)
            assert scan.target is not None
            image = scan.target.abs().numpy()
            images.append(np.abs(image + 0.02 * rng.standard_normal(image.shape)))
        write_shard(
            folder / f"{contrast}.safetensors",
            np.stack(images).astype(np.float16),
            [ScanMetadata(anatomy="brain", contrast=contrast)] * len(images),
            source=Path(f"{contrast}.nii"),
            source_bytes=1,
            subjects=subjects,
        )
