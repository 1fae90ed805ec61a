"""Foreground masks for the evaluation of parameter maps."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.tasks.decays import check_echoes

_EIGHT = ndimage.generate_binary_structure(2, 2)


def foreground_mask(images: Tensor) -> Tensor:
    """Segment the object from several contrasts or echoes, as JoJoNet's supplement does for brains.

    The steps are: mean magnitude over the contrasts, Sobel gradient, threshold, dilation, hole
    filling, and the largest connected component. The paper does not specify the threshold; here it
    is the root mean square of the gradient. Since the outline lies one pixel outside the edge and
    the dilation adds another, the mask is eroded by two pixels, which the paper does not mention.
    The result is not differentiable and intended for evaluation only.

    Args:
        images: Complex or magnitude images ``(batch, contrasts, ny, nx)``.

    Returns:
        Masks ``(batch, ny, nx)``, bool, on the images' device.

    Raises:
        InputError: If the images have another shape, or a slice shows no object.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import foreground_mask
        >>> images = torch.zeros(1, 2, 32, 32)
        >>> images[..., 8:24, 8:24] = 1
        >>> mask = foreground_mask(images)
        >>> bool(mask[0, 16, 16]), bool(mask[0, 2, 2])
        (True, False)
    """
    means = check_echoes(images).detach().mean(dim=1).cpu().numpy()
    masks = []
    for number, mean in enumerate(means):
        square = ndimage.sobel(mean, axis=0) ** 2 + ndimage.sobel(mean, axis=1) ** 2
        edges = square > square.mean()
        filled = ndimage.binary_fill_holes(ndimage.binary_dilation(edges, _EIGHT))
        # Pixels beyond the border count as object; otherwise the erosion would start there.
        eroded = ndimage.binary_erosion(filled, _EIGHT, iterations=2, border_value=1)
        labels, count = ndimage.label(eroded)
        if not count:
            raise InputError(
                f"slice {number} shows no object, only a flat image or thin lines: omit it"
            )
        sizes = ndimage.sum_labels(eroded, labels, range(1, count + 1))
        masks.append(torch.from_numpy(labels == 1 + sizes.argmax()))
    return torch.stack(masks).to(images.device)
