"""Label volumes of heads, from which slices are simulated."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctxrecon.datasets.source import Slice, VolumeSource, check_size
from ctxrecon.errors import InputError
from ctxrecon.phantom.dataset import describe
from ctxrecon.phantom.labels import anatomy_from_labels, load_label_volume
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.phantom.subject import Subject

# Minimum size of the label map in fine pixels; larger for larger images.
_FINE = 256
# Fields of view in mm that contain a whole head.
_FIELD_OF_VIEW = (210.0, 256.0)


class LabelSource(VolumeSource):
    """Source of FreeSurfer label volumes (NIfTI), imaged by the phantom without noise.

    Slice ``i`` of ``n`` lies at a random position in the ``i``-th of ``n`` equal parts of the
    brain, lowest first, with its own deformation, person, protocol and side. It is determined by
    the seed, the volume's name and ``i`` alone, and hence reproducible.

    Args:
        size: Image size ``(ny, nx)``.
        slices_per_volume: Number of slices ``n`` per volume.
        seed: Random seed of the whole set.
    """

    kind = "labels"
    suffixes = (".nii.gz", ".nii")

    def __init__(
        self, *, size: tuple[int, int] = (256, 256), slices_per_volume: int = 60, seed: int = 0
    ) -> None:
        self.size = check_size(size)
        if slices_per_volume < 1:
            raise InputError(f"expected `slices_per_volume` of at least 1, got {slices_per_volume}")
        if seed < 0:
            raise InputError(f"expected `seed` of at least 0, got {seed}")
        if importlib.util.find_spec("nibabel") is None:
            raise InputError("label volumes need nibabel: install it with pip install nibabel")
        self.slices_per_volume = slices_per_volume
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        """Return size, slices per volume and seed."""
        return {
            "size": list(self.size),
            "slices_per_volume": self.slices_per_volume,
            "seed": self.seed,
        }

    def slices(self, path: Path) -> Iterator[Slice | None]:
        """Yield the simulated slices of one person."""
        volume = load_label_volume(path)
        person = int.from_bytes(hashlib.sha256(self.name(path).encode()).digest()[:8], "big")
        fine = max(_FINE, *self.size)
        for index in range(self.slices_per_volume):
            rng = np.random.default_rng([self.seed, person, index])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            protocol = draw_protocol(generator, anatomy="brain")
            anatomy = anatomy_from_labels(
                volume,
                (index + rng.random()) / self.slices_per_volume,
                rng,
                size=fine,
                voxel_mm=float(rng.uniform(*_FIELD_OF_VIEW)) / fine,
            )
            if rng.random() < 0.5:
                anatomy = anatomy.mirrored()
            subject = Subject.draw(anatomy, protocol.field_strength or 1.5, rng)
            image = subject.image(protocol, self.size, rng)
            yield Slice(image, describe(anatomy, protocol))
