"""Classification of findings from the zero-filled image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.tasks.zero_filled import as_channels

FINDINGS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "meniscal tear": lambda label: label == "Meniscus Tear",
        "ACL sprain": lambda label: label.startswith("Ligament - ACL"),
        "abnormal": lambda label: label != "artifact",
    }
)
"""Finding -> predicate on fastMRI+ labels: the three findings that InfoMRI classifies."""


def finding_labels(pathologies: Sequence[str], findings: Sequence[str] = tuple(FINDINGS)) -> Tensor:
    """Return the findings of a slice, ``(findings,)`` bool.

    Args:
        pathologies: Labels of the slice in the vocabulary of fastMRI+, as in
            :class:`~ctxrecon.metadata.ScanMetadata`.
        findings: Names from :data:`FINDINGS`.

    Raises:
        InputError: If a finding is unknown.

    Example:
        >>> from ctxrecon.tasks import finding_labels
        >>> finding_labels(["Meniscus Tear"])
        tensor([ True, False,  True])
    """
    if unknown := [name for name in findings if name not in FINDINGS]:
        raise InputError(f"unknown finding {unknown[0]!r}: expected one of {', '.join(FINDINGS)}")
    return torch.tensor([any(map(FINDINGS[name], pathologies)) for name in findings])


_GROUP = 16
"""Number of channels per normalization group."""


class FindingClassifier(ModelMixin, ConfigMixin):
    """ResNet-18 on the zero-filled image with the logits of independent findings.

    He et al., CVPR 2016, with two input channels, 11.18 million parameters. InfoMRI's ``q(z|y)``
    is categorical; findings of knees occur together, so that here each has its own probability.
    Group normalization replaces batch normalization: the result for a slice then does not depend
    on its batch, and averaged weights need no separate statistics.

    Args:
        findings: Names of the outputs.
        width: Number of channels of the first stage, doubled by each of the three others; 64 as
            published.

    Raises:
        InputError: If there are no findings, or the width is not a positive whole number.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import FindingClassifier
        >>> classifier = FindingClassifier(width=8)
        >>> classifier(torch.ones(2, 64, 64, dtype=torch.complex64)).shape
        torch.Size([2, 3])
    """

    @register_to_config
    def __init__(self, findings: Sequence[str] = tuple(FINDINGS), width: int = 64) -> None:
        super().__init__()
        check_counts(width=width)
        if isinstance(findings, str) or not findings:
            raise InputError(f"expected a list of names as `findings`, got {findings!r}")
        self.stem = nn.Sequential(
            nn.Conv2d(2, width, 7, stride=2, padding=3, bias=False),
            _norm(width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            wider = width * 2**stage
            blocks += [_Block(channels, wider, 2 if stage else 1), _Block(wider, wider, 1)]
            channels = wider
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, len(findings))

    def forward(self, zero_filled: Tensor) -> Tensor:
        """Return logits ``(batch, findings)``, float32.

        Args:
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64, of arbitrary
                intensity.
        """
        channels, _ = as_channels(self, zero_filled)
        features = self.stages(self.stem(channels)).mean(dim=(-2, -1))
        return self.head(features).float()


class _Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False),
            _norm(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            _norm(out_channels),
        )
        self.around: nn.Module = nn.Identity()
        if stride > 1 or channels != out_channels:
            self.around = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
                _norm(out_channels),
            )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.layers(features) + self.around(features))


def _norm(channels: int) -> nn.GroupNorm:
    """Return a group norm of 16 channels per group; pairs would lose too much in small images."""
    return nn.GroupNorm(math.gcd(channels, max(channels // _GROUP, 1)), channels)
