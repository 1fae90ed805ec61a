"""LPIPS, a learned perceptual distance."""

from __future__ import annotations

import os
import warnings
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.metrics.image import ArrayLike, check_images

if TYPE_CHECKING:
    from torch.nn import Module

# In smaller images the last feature maps would have no pixels.
_MIN_SIZE = {"squeeze": 17, "alex": 31, "vgg": 16}
_SHIPPED = "squeezenet1_1_features.safetensors"


class Lpips:
    """Learned perceptual image patch similarity (Zhang et al. 2018), version 0.1; lower is better.

    The network is built at the first call. The calibrated linear layers come with the ``lpips``
    package and the ImageNet backbone "squeeze" with this one. Nothing is downloaded: other
    backbones are read from ``weights`` or else from torch's hub cache. Distances of different
    backbones are not comparable, so report the backbone with the value.

    Example:
        >>> from ctxrecon.metrics import Lpips
        >>> Lpips(backbone="squeeze").backbone
        'squeeze'

    Args:
        weights: State dict of torchvision's ``squeezenet1_1``, ``alexnet`` or ``vgg16``: a ``.pth``
            file as published by torchvision, or a ``.safetensors`` file with the same names.
        backbone: ``"squeeze"``; ``"alex"``, which most papers report; or ``"vgg"``.

    Raises:
        InputError: If the backbone is unknown, or the ``weights`` file does not exist.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        backbone: Literal["squeeze", "alex", "vgg"] = "squeeze",
    ) -> None:
        if backbone not in _MIN_SIZE:
            known = ", ".join(_MIN_SIZE)
            raise InputError(f"expected an LPIPS backbone of {known}, got {backbone!r}")
        if weights is not None and not Path(weights).is_file():
            raise InputError(f"LPIPS weights {os.fspath(weights)} are not a file")
        self.backbone = backbone
        self._weights = None if weights is None else Path(weights)
        self._network: Module | None = None

    @torch.no_grad()
    def __call__(self, prediction: ArrayLike, reference: ArrayLike) -> Tensor:
        """Compute the distance of each slice.

        Magnitudes are mapped from [0, maximum of the reference slice] to [-1, 1], with the scale of
        the reference for both images, and repeated over three channels.

        Args:
            prediction: Image of shape ``(batch, ny, nx)``, complex or real, NumPy or torch.
            reference: Ground truth of the same shape, in the same units.

        Returns:
            Distances of shape ``(batch,)``, float32.

        Raises:
            InputError: If the images cannot be compared, are zero or too small for the backbone,
                the weights are missing or belong to another network, or ``lpips`` is not installed.
        """
        p, r = check_images(prediction, reference)
        smallest = _MIN_SIZE[self.backbone]
        if min(p.shape[-2:]) < smallest:
            raise InputError(
                f"expected images of at least {smallest}x{smallest} for LPIPS, "
                f"got {tuple(p.shape[-2:])}"
            )
        peak = r.amax(dim=(-2, -1), keepdim=True)
        if bool((peak == 0).any()):
            raise InputError("the reference of a slice is zero everywhere: leave it out")
        if self._network is None:
            self._network = _build(self.backbone, self._weights)
        network = self._network.to(p.device)
        inputs = [
            (2.0 * image / peak - 1.0).float()[:, None].expand(-1, 3, -1, -1) for image in (p, r)
        ]
        distance: Tensor = network(*inputs)
        return distance.flatten()


def _build(backbone: str, weights: Path | None) -> Module:
    try:
        import lpips
    except ImportError as error:
        raise InputError(
            "LPIPS needs the package lpips: install it with pip install lpips"
        ) from error
    if weights is None:
        weights = _shipped_weights() if backbone == "squeeze" else _cached_weights(backbone)
    state = _read(weights)
    if not isinstance(state, dict):
        raise InputError(f"{weights} is not a state dict of tensors but a {type(state).__name__}")
    # pnet_rand initializes the backbone randomly, so that lpips does not download it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")  # lpips uses its old interface
        network: Module = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    trunk = network.get_submodule("net")
    # torchvision's features.3 is slice2.3 in lpips, named after the slice that contains it.
    renamed = {key: f"features.{key.split('.', 1)[1]}" for key in trunk.state_dict()}
    missing = [
        name
        for key, name in renamed.items()
        if name not in state or state[name].shape != trunk.state_dict()[key].shape
    ]
    if missing:
        raise InputError(
            f"{weights} does not fit the LPIPS backbone {backbone!r}: {missing[0]} is missing or "
            "of another shape"
        )
    trunk.load_state_dict({key: state[name] for key, name in renamed.items()})
    return network


def _read(weights: Path) -> Any:
    """Read a file of weights without running code from it."""
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        return torch.load(weights, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        UnpicklingError,
        SafetensorError,
    ) as error:
        raise InputError(f"{weights} is not a state dict of tensors: {error}") from error


def _shipped_weights() -> Path:
    return Path(str(files("ctxrecon.checkpoints").joinpath("lpips").joinpath(_SHIPPED)))


def _cached_weights(backbone: str) -> Path:
    from torchvision.models import (  # type: ignore[import-untyped]
        AlexNet_Weights,
        VGG16_Weights,
    )

    choice = AlexNet_Weights.IMAGENET1K_V1 if backbone == "alex" else VGG16_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir(), "checkpoints", choice.url.rsplit("/", 1)[1])
    if not path.is_file():
        raise InputError(
            f"LPIPS needs the weights of its backbone, which are not at {path}: download "
            f"{choice.url} and pass the file as Lpips(weights=...)"
        )
    return path
