"""Test scans with references, and scores of a network on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.held_out import LABEL_VOLUME, center_fraction, held_out_anatomy, scan_seed
from benchmarks.cross_modal.tables import Task
from ctxrecon.fourier import ifft2c
from ctxrecon.masks import make_mask
from ctxrecon.metrics import image_metrics
from ctxrecon.phantom import Misalignment, PairScan, load_label_volume, pair_scan
from ctxrecon.pipelines import CrossModalPipeline
from ctxrecon.pipelines.cross_modal import CrossModalReconstruction
from ctxrecon.reconstructors.warp import endpoint_error, fold_share

Scores = dict[str, list[float]]
"""Values of each scan, by metric."""

_STILL = Misalignment(rotation=0.0, translation=0.0, elastic=0.0)


@dataclass(frozen=True)
class TestScans:
    """Undersampled T2 scans, each with a T1 scan of the person with and without motion.

    Attributes:
        moved: Scans with motion between T1 and T2.
        still: The same scans without motion.
        masks: Sampling masks of shape ``(scans, 1, n, n)``, bool.
        people: Person of each scan.
    """

    moved: list[PairScan]
    still: list[PairScan]
    masks: Tensor
    people: list[str]

    @classmethod
    def draw(
        cls,
        count: int,
        resolution: int,
        task: Task,
        label_volumes: Sequence[Path],
        misalignment: Misalignment,
        seed: int,
    ) -> TestScans:
        """Draw held-out procedural brains, in turn with slices of label volumes."""
        volumes = [load_label_volume(path) for path in label_volumes]
        kinds = ["brain", LABEL_VOLUME] if volumes else ["brain"]
        moved: list[PairScan] = []
        still: list[PairScan] = []
        masks: list[Tensor] = []
        people: list[str] = []
        for number in range(count):
            kind = kinds[number % len(kinds)]
            own, volume, person = scan_seed(seed, number), None, f"brain {number}"
            if kind == LABEL_VOLUME:
                place = number // len(kinds) % len(volumes)
                volume, person = volumes[place], label_volumes[place].name
            for motion, found in ((misalignment, moved), (_STILL, still)):
                generator = torch.Generator().manual_seed(own)
                anatomy = held_out_anatomy(kind, own, resolution, generator, volume)
                found.append(
                    pair_scan(
                        anatomy,
                        misalignment=motion,
                        shape=(resolution, resolution),
                        magnitude=True,
                        generator=generator,
                    )
                )
            fraction = center_fraction(task.acceleration) if task.mask.endswith("1d") else None
            masks.append(
                make_mask(
                    task.mask,
                    (resolution, resolution),
                    task.acceleration,
                    fraction,
                    generator=torch.Generator().manual_seed(own),
                )
            )
            people.append(person)
        return cls(moved, still, torch.cat(masks), people)

    @property
    def target(self) -> Tensor:
        """Target images of shape ``(scans, n, n)``, complex64."""
        return torch.cat([scan.target for scan in self.moved])

    @property
    def kspace(self) -> Tensor:
        """Undersampled k-space of shape ``(scans, 1, n, n)``, complex64."""
        return torch.cat([scan.kspace for scan in self.moved]) * self.masks

    @property
    def filled(self) -> Tensor:
        """Zero-filled images of shape ``(scans, n, n)``, complex64."""
        return ifft2c(self.kspace)[:, 0]

    @property
    def references(self) -> Tensor:
        """T1 images after motion, ``(scans, n, n)``, complex64."""
        return torch.cat([scan.reference for scan in self.moved])

    def zero_filled(self) -> Scores:
        """Score zero-filling, with the endpoint error of no alignment."""
        truth, head = self._displacement(self.moved)
        return {
            **image_scores(self.filled, self.target),
            "endpoint_error": endpoint_error(torch.zeros_like(truth), truth, head).tolist(),
        }

    def reconstruct(
        self, pipe: CrossModalPipeline, *, still: bool = False
    ) -> CrossModalReconstruction[Tensor]:
        """Reconstruct the scans by a network.

        Args:
            pipe: Single-coil pipeline.
            still: Use the references without motion.
        """
        scans = self.still if still else self.moved
        reference = torch.cat([scan.reference for scan in scans])
        return pipe(self.kspace, self.masks, reference=reference)

    def rate(self, output: CrossModalReconstruction[Tensor], *, still: bool = False) -> Scores:
        """Score images, synthetic images and displacements."""
        assert output.synthetic is not None
        assert output.displacement is not None
        truth, head = self._displacement(self.still if still else self.moved)
        synthetic = image_metrics(output.synthetic.cpu(), self.target)["psnr"]
        displacement = output.displacement.cpu()
        return {
            **image_scores(output.images.cpu(), self.target),
            "psnr_synthetic": synthetic.tolist(),
            "endpoint_error": endpoint_error(displacement, truth, head).tolist(),
            "folds": fold_share(displacement, head).tolist(),
        }

    @staticmethod
    def _displacement(scans: list[PairScan]) -> tuple[Tensor, Tensor]:
        """Return the true displacement and a mask of the head."""
        truth = torch.stack([torch.from_numpy(scan.pair.displacement) for scan in scans])
        head = torch.stack([torch.from_numpy(scan.pair.labels > 0) for scan in scans])
        return truth, head


def image_scores(images: Tensor, target: Tensor) -> Scores:
    """Return PSNR, SSIM and NMSE of each image."""
    scores = image_metrics(images, target)
    return {name: scores[name].tolist() for name in ("psnr", "ssim", "nmse")}
