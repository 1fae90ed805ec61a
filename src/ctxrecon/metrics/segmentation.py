"""How well segmentations agree: overlap of two, and the distance of two distributions of them.

Masks are bool ``(…, ny, nx)``, one for each class. Two empty masks agree: overlap 1, distance 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def class_masks(labels: Tensor, num_classes: int) -> Tensor:
    """A bool mask for each class but the background, ``(…, num_classes − 1, ny, nx)``.

    Args:
        labels: whole numbers ``(…, ny, nx)``, 0 for the background.
        num_classes: the background included.

    Raises:
        InputError: labels that are not whole numbers from 0 to ``num_classes − 1``.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.ndim < 2 or num_classes < 2:
        raise InputError(
            "expected whole-number labels (..., ny, nx) of two classes or more, got "
            f"{labels.dtype} {tuple(labels.shape)} and {num_classes} classes"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise InputError(
            f"expected labels from 0 to {num_classes - 1}, got some from {int(labels.min())} to "
            f"{int(labels.max())}"
        )
    return torch.stack([labels == each for each in range(1, num_classes)], dim=-3)


def dice(first: Tensor, second: Tensor) -> Tensor:
    """Dice coefficient ``2 |A ∩ B| / (|A| + |B|)``, ``(…)`` float64.

    Args:
        first: bool ``(…, ny, nx)``.
        second: likewise, of a shape that is broadcast with that of ``first``.

    Raises:
        InputError: masks that are not bool, or of shapes that do not fit.
    """
    both, total = _overlap(first, second)
    return _ratio(2 * both, total)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union ``|A ∩ B| / |A ∪ B|``, ``(…)`` float64.

    Arguments and errors are those of :func:`dice`.
    """
    both, total = _overlap(first, second)
    return _ratio(both, total - both)


def generalized_energy_distance(samples: Tensor, references: Tensor) -> Tensor:
    """``2 E d(ẑ, z) − E d(ẑ, ẑ′) − E d(z, z′)``, the distance of two distributions of masks.

    Kohl et al., NeurIPS 2018, equation (4); ``d = 1 − IoU``, averaged over the classes. The last
    two means are over pairs of different draws (U-statistics), so that the estimate has no bias:
    it is 0 on average where the distributions are equal, and then negative half of the time. A
    V-statistic, which counts each draw as a pair with itself, would favor small spread. Of a
    single draw there are no pairs: it stands for a method, or a truth, that never varies.

    Args:
        samples: ẑ, bool ``(…, draws, classes, ny, nx)``.
        references: z, such as the masks of several raters, ``(…, raters, classes, ny, nx)``.

    Returns:
        ``(…)`` float64, from −1 to 2.

    Raises:
        InputError: masks that are not bool, or of shapes that do not fit.
    """
    _check_bool(samples, references)
    fits = samples.ndim >= 4 and samples.ndim == references.ndim
    left, right = (each.shape[:-4] + each.shape[-3:] for each in (samples, references))
    if not fits or left != right or 0 in samples.shape or 0 in references.shape:
        raise InputError(
            "expected samples (..., draws, classes, ny, nx) and references (..., raters, classes, "
            f"ny, nx), got {tuple(samples.shape)} and {tuple(references.shape)}"
        )
    across = _distances(samples, references).mean(dim=(-2, -1))
    return 2 * across - _mean_of_pairs(samples) - _mean_of_pairs(references)


def majority(masks: Tensor) -> Tensor:
    """The pixels that more than half of the draws hold, ``(…, classes, ny, nx)`` bool.

    Args:
        masks: bool ``(…, draws, classes, ny, nx)``.
    """
    _check_bool(masks)
    return 2 * masks.sum(dim=-4) > masks.shape[-4]


def segmentation_metrics(samples: Tensor, references: Tensor) -> dict[str, Tensor]:
    """Agreement of the draws of a method with several raters, each ``(…)`` float64.

    Arguments and errors are those of :func:`generalized_energy_distance`.

    Returns:
        "ged", :func:`generalized_energy_distance`; "dice", the mean over single draws and single
        raters; "dice_majority", that of the two majorities; both are means over the classes;
        "diversity", ``E d(ẑ, ẑ′)``, how far apart the draws are, and "reference_diversity" of the
        raters. Where these have two opinions that are equally frequent, that is the least distance
        "ged" that one prediction can have.
    """
    ged = generalized_energy_distance(samples, references)
    both, total = _pairwise(samples, references)
    pairs = _ratio(2 * both, total).mean(dim=(-3, -2, -1))
    voted = dice(majority(samples), majority(references)).mean(dim=-1)
    return {
        "ged": ged,
        "dice": pairs,
        "dice_majority": voted,
        "diversity": _mean_of_pairs(samples),
        "reference_diversity": _mean_of_pairs(references),
    }


def _check_bool(*masks: Tensor) -> None:
    for mask in masks:
        if mask.dtype != torch.bool:
            raise InputError(f"expected bool masks, got {mask.dtype}: compare labels with a class")


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """``|A ∩ B|`` and ``|A| + |B|``, float64."""
    _check_bool(first, second)
    try:
        first, second = torch.broadcast_tensors(first, second)
    except RuntimeError as error:
        raise InputError(
            f"expected two masks of one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        ) from error
    total = first.sum(dim=(-2, -1)) + second.sum(dim=(-2, -1))
    return (first & second).sum(dim=(-2, -1)).double(), total.double()


def _pairwise(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """``|A ∩ B|`` and ``|A| + |B|`` of all pairs, ``(…, classes, first, second)`` float64."""
    # Float32 counts exactly up to 2^24 pixels.
    a, b = (each.movedim(-4, -3).flatten(-2).float() for each in (first, second))
    both = (a @ b.mT).double()
    return both, (a.sum(dim=-1)[..., :, None] + b.sum(dim=-1)[..., None, :]).double()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """d of all pairs, ``(…, first, second)``."""
    both, total = _pairwise(first, second)
    return (1 - _ratio(both, total - both)).mean(dim=-3)


def _mean_of_pairs(masks: Tensor) -> Tensor:
    """Mean of d over pairs of different draws; 0 of a single one."""
    count = masks.shape[-4]
    # A draw is at distance 0 from itself.
    return _distances(masks, masks).sum(dim=(-2, -1)) / max(count * (count - 1), 1)
