"""Where the object is, for the evaluation of parameter maps without their background."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.tasks.decays import check_echoes

_EIGHT = ndimage.generate_binary_structure(2, 2)


def foreground_mask(images: Tensor) -> Tensor:
    """The object that several contrasts or echoes show, as JoJoNet's supplement finds the brain.

    The magnitudes' mean over the contrasts, its Sobel gradient, a threshold, a dilation, filled
    holes, and of what is left the largest connected component. The paper does not name the
    threshold; here it is the gradient's root mean square. The outline lies a pixel outside the
    edge and the dilation adds another, so an erosion by two pixels, which the paper does not
    mention, follows. Not differentiable, for evaluation only.

    Args:
        images: ``(batch, contrasts, ny, nx)``, complex or magnitudes.

    Returns:
        ``(batch, ny, nx)`` bool, on the images' device.

    Raises:
        InputError: images of another shape, or a slice without an object.
    """
    means = check_echoes(images).detach().mean(dim=1).cpu().numpy()
    masks = []
    for number, mean in enumerate(means):
        square = ndimage.sobel(mean, axis=0) ** 2 + ndimage.sobel(mean, axis=1) ** 2
        edges = square > square.mean()
        filled = ndimage.binary_fill_holes(ndimage.binary_dilation(edges, _EIGHT))
        # What lies beyond the border counts as object, or it would be eaten from there.
        eroded = ndimage.binary_erosion(filled, _EIGHT, iterations=2, border_value=1)
        labels, count = ndimage.label(eroded)
        if not count:
            raise InputError(
                f"slice {number} shows no object, only a flat image or thin lines: leave it out"
            )
        sizes = ndimage.sum_labels(eroded, labels, range(1, count + 1))
        masks.append(torch.from_numpy(labels == 1 + sizes.argmax()))
    return torch.stack(masks).to(images.device)
