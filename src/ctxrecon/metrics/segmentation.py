"""Agreement of segmentations: overlap of two masks, and distance of distributions of masks.

Masks are bool ``(…, ny, nx)``, one per class. Two empty masks agree: overlap 1, distance 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def class_masks(labels: Tensor, num_classes: int) -> Tensor:
    """Return a bool mask for each class except the background.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import class_masks
        >>> class_masks(torch.tensor([[0, 1], [2, 2]]), num_classes=3).shape
        torch.Size([2, 2, 2])

    Args:
        labels: Class indices of shape ``(…, ny, nx)``, 0 for the background.
        num_classes: Number of classes including the background.

    Returns:
        Masks of shape ``(…, num_classes − 1, ny, nx)``, bool.

    Raises:
        InputError: If labels are not whole numbers from 0 to ``num_classes − 1``.
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
    """Compute the Dice coefficient ``2 |A ∩ B| / (|A| + |B|)``, ``(…)`` float64.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import dice
        >>> dice(torch.tensor([[True, True]]), torch.tensor([[True, False]])).item()
        0.6666666666666666

    Args:
        first: Masks of shape ``(…, ny, nx)``, bool.
        second: Masks of a shape that broadcasts with that of ``first``, bool.

    Raises:
        InputError: If masks are not bool or shapes do not match.
    """
    both, total = _overlap(first, second)
    return _ratio(2 * both, total)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the intersection over union ``|A ∩ B| / |A ∪ B|``, ``(…)`` float64.

    Arguments and errors are those of :func:`dice`.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import iou
        >>> iou(torch.tensor([[True, True]]), torch.tensor([[True, False]])).item()
        0.5
    """
    both, total = _overlap(first, second)
    return _ratio(both, total - both)


def generalized_energy_distance(samples: Tensor, references: Tensor) -> Tensor:
    r"""Compute the generalized energy distance of two distributions of masks.

    .. math::

        D^2 = 2\, E\, d(\hat{z}, z) - E\, d(\hat{z}, \hat{z}') - E\, d(z, z'),
        \qquad d = 1 - \mathrm{IoU}

    Kohl et al., NeurIPS 2018 (arXiv:1806.05034), equation (4); d is averaged over the classes. The
    last two means are over pairs of different samples (U-statistics), so that the estimate is
    unbiased: for equal distributions it is 0 on average, and hence negative half of the time. A
    V-statistic, which includes pairs of a sample with itself, would favor small spread. A single
    sample has no pairs and stands for a method, or a rater, without variation.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import generalized_energy_distance
        >>> masks = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        >>> generalized_energy_distance(masks, masks).item()
        0.0

    Args:
        samples: Samples ẑ of shape ``(…, draws, classes, ny, nx)``, bool.
        references: Masks z, such as those of several raters, ``(…, raters, classes, ny, nx)``,
            bool.

    Returns:
        Distances of shape ``(…)``, float64, from −1 to 2.

    Raises:
        InputError: If masks are not bool or shapes do not match.
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
    """Return the pixels that more than half of the samples contain.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import majority
        >>> votes = torch.tensor([True, True, False]).reshape(3, 1, 1, 1)
        >>> majority(votes)
        tensor([[[True]]])

    Args:
        masks: Masks of shape ``(…, draws, classes, ny, nx)``, bool.

    Returns:
        Masks of shape ``(…, classes, ny, nx)``, bool.
    """
    _check_bool(masks)
    return 2 * masks.sum(dim=-4) > masks.shape[-4]


def segmentation_metrics(samples: Tensor, references: Tensor) -> dict[str, Tensor]:
    """Compute the agreement of a method's samples with several raters, each ``(…)`` float64.

    Arguments and errors are those of :func:`generalized_energy_distance`.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import segmentation_metrics
        >>> masks = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        >>> segmentation_metrics(masks, masks)["dice"].item()
        1.0

    Returns:
        "ged", the :func:`generalized_energy_distance`; "dice", the mean over single samples and
        single raters; "dice_majority", the Dice coefficient of the two majority votes; both are
        means over the classes; "diversity", ``E d(ẑ, ẑ′)``, the mean distance between samples; and
        "reference_diversity", that between raters. If R raters hold two equally frequent opinions
        at the distance d, this is ``R d / (2 (R − 1))``, and the "ged" of a single prediction is at
        least ``d`` minus this value.
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
    """Return ``|A ∩ B|`` and ``|A| + |B|``, float64."""
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
    """Return ``|A ∩ B|`` and ``|A| + |B|`` of pairs, float64 ``(…, classes, first, second)``."""
    # Float32 is exact for counts up to 2^24 pixels.
    a, b = (each.movedim(-4, -3).flatten(-2).float() for each in (first, second))
    both = (a @ b.mT).double()
    return both, (a.sum(dim=-1)[..., :, None] + b.sum(dim=-1)[..., None, :]).double()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Return d of all pairs, ``(…, first, second)``."""
    both, total = _pairwise(first, second)
    return (1 - _ratio(both, total - both)).mean(dim=-3)


def _mean_of_pairs(masks: Tensor) -> Tensor:
    """Return the mean of d over pairs of different samples; 0 for a single sample."""
    count = masks.shape[-4]
    # The distance of a sample from itself is 0.
    return _distances(masks, masks).sum(dim=(-2, -1)) / max(count * (count - 1), 1)
