"""Images drawn from prompts alone, compared with phantom images of the same metadata.

A generated image has no labels, so its contrast is judged by the distribution of its magnitudes,
which the signal equation determines: the relative brightness of fluid, fat and the large tissues.
Two images are compared by the 1-D Wasserstein distance between their magnitudes (99 % quantile
scaled to 1), the mean absolute difference of 64 quantiles. The distance of an image to a contrast
is its mean distance to the three nearest phantom images of that contrast, excluding the one with
its own number. Because anatomies vary more than T1-weighted contrasts, the distances of four images
of one contrast are averaged before the nearest contrast is determined. Phantom images classified in
the same way are an upper bound; images drawn with γ = 0, without a prompt, show the chance level.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.held_out import scan_seed
from benchmarks.metadata.plan import MAX_SCANS
from ctxrecon.evaluation import Row, append_rows
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan

CONTRASTS = {
    "brain T1": ("brain", "T1"),
    "brain T1POST": ("brain", "T1POST"),
    "brain T2": ("brain", "T2"),
    "brain FLAIR": ("brain", "FLAIR"),
    "knee PD": ("knee", "PD"),
    "knee PDFS": ("knee", "PDFS"),
}
IMAGE_COLUMNS = ("contrast", "image", "method", *CONTRASTS)
PHANTOM = "phantom"
GROUP = 4
"""Number of images whose distances are averaged."""

_NEAREST = 3
_LEVELS = (np.arange(64) + 0.5) / 64
_FIRST = 5 * MAX_SCANS

Key = tuple[str, str, int]


class References:
    """Phantom images of every contrast with their metadata, and distances to them.

    Args:
        count: Images of each contrast.
        resolution: Matrix size.
        seed: Random seed of the study. The images occur in no training set or other experiment.
    """

    def __init__(self, count: int, resolution: int, seed: int) -> None:
        self.scans = {
            name: [
                _reference(contrast, self.seed_of(name, number, seed), resolution)
                for number in range(count)
            ]
            for name, contrast in tqdm(CONTRASTS.items(), desc="drawing references")
        }
        self._quantiles = np.stack(
            [
                quantiles(torch.cat([scan.target for scan in scans if scan.target is not None]))
                for scans in self.scans.values()
            ]
        )

    @staticmethod
    def seed_of(name: str, number: int, seed: int) -> int:
        """Return the seed of the phantom image and of the initial noise of its prompt."""
        place = list(CONTRASTS).index(name)
        return scan_seed(seed, _FIRST + place * MAX_SCANS // len(CONTRASTS) + number)

    def distances(self, images: Tensor, numbers: list[int]) -> list[NDArray[np.float64]]:
        """Return the distances of images ``(len(numbers), ny, nx)`` to each contrast."""
        found = []
        for own, number in zip(quantiles(images), numbers, strict=True):
            others = np.delete(self._quantiles, number, axis=1)
            distance = np.abs(others - own).mean(axis=-1)
            found.append(np.sort(distance, axis=1)[:, :_NEAREST].mean(axis=1))
        return found


def _reference(contrast: tuple[str, str], seed: int, resolution: int) -> Scan:
    anatomy, word = contrast
    return phantom_scan(
        anatomy,
        contrast=word,
        shape=(resolution, resolution),
        num_coils=1,
        snr=None,
        generator=torch.Generator().manual_seed(seed),
    )


def quantiles(images: Tensor) -> NDArray[np.float64]:
    """Return 64 quantiles of each image ``(batch, ny, nx)``, scaled by the 99 % quantile."""
    values = images.abs().flatten(1).cpu().double().numpy()
    bright = np.quantile(values, 0.99, axis=1, keepdims=True)
    return np.quantile(values / np.maximum(bright, 1e-12), _LEVELS, axis=1).T


def method_name(gamma: float) -> str:
    """Return the name of a method in the rows."""
    return f"γ = {gamma:g}"


def generate(
    pipe: ContextMRIPipeline,
    references: References,
    name: str,
    numbers: list[int],
    gamma: float,
    args: argparse.Namespace,
) -> Tensor:
    """Draw images ``(len(numbers), ny, nx)`` from the prompts of these phantom images."""
    prompts = [references.scans[name][number].metadata[0].to_prompt() for number in numbers]
    seeds = [references.seed_of(name, number, args.seed) for number in numbers]
    output = pipe.generate(
        prompts,
        height=args.resolution,
        width=args.resolution,
        guidance_scale=gamma,
        num_inference_steps=args.steps,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    return output.images.cpu()


def generate_batch(
    path: Path,
    rows: list[Row],
    references: References,
    numbers: list[int],
    gammas: Iterable[float],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
    bar: tqdm,
) -> None:
    """Measure the missing rows of ``numbers``; append them to the file and ``rows``."""
    done = {(row["contrast"], row["method"], int(row["image"])) for row in rows}
    for name in CONTRASTS:
        for gamma in (None, *gammas):
            method = PHANTOM if gamma is None else method_name(gamma)
            bar.set_description(f"images, {name}, {method}")
            missing = [number for number in numbers if (name, method, number) not in done]
            if not missing:
                continue
            if gamma is None:
                scans = [references.scans[name][number] for number in missing]
                images = torch.cat([scan.target for scan in scans if scan.target is not None])
            else:
                images = generate(pipe, references, name, missing, gamma, args)
            new = [
                {
                    "contrast": name,
                    "image": str(number),
                    "method": method,
                    **{
                        other: repr(float(value))
                        for other, value in zip(CONTRASTS, distances, strict=True)
                    },
                }
                for number, distances in zip(
                    missing, references.distances(images, missing), strict=True
                )
            ]
            append_rows(path, IMAGE_COLUMNS, new)
            rows += new


def distance_table(
    rows: list[Row], methods: list[str], count: int
) -> tuple[dict[str, NDArray[np.float64]], list[int]]:
    """Return the distances of each method and the numbers of the complete images.

    Distances have shape ``(contrasts of the prompt, images, contrasts)``. Only images below
    ``count`` that every contrast and method has are included.
    """
    table: dict[Key, list[float]] = {
        (row["method"], row["contrast"], int(row["image"])): [float(row[c]) for c in CONTRASTS]
        for row in rows
    }
    numbers = [
        number
        for number in range(count)
        if all((method, name, number) in table for method in methods for name in CONTRASTS)
    ]
    return {
        method: np.array(
            [[table[method, name, number] for number in numbers] for name in CONTRASTS]
        )
        for method in methods
    }, numbers


def confusion(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count groups of images by contrast (rows) and nearest contrast (columns).

    Args:
        distances: Distances of shape ``(contrasts, images, contrasts)``. An incomplete group of
            fewer than :data:`GROUP` images is ignored.
    """
    contrasts, images, _ = distances.shape
    groups = images // GROUP
    means = distances[:, : groups * GROUP].reshape(contrasts, groups, GROUP, contrasts).mean(axis=2)
    nearest = means.argmin(axis=-1)
    return np.stack([np.bincount(row, minlength=contrasts) for row in nearest])
