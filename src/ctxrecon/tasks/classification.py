"""Findings of a slice from its zero-filled image, for measurements that tell little else."""

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
"""Finding -> whether a label of fastMRI+ is one: the three that InfoMRI classifies knees by."""


def finding_labels(pathologies: Sequence[str], findings: Sequence[str] = tuple(FINDINGS)) -> Tensor:
    """Which findings a slice has, ``(findings,)`` bool.

    Args:
        pathologies: its labels in the words of fastMRI+, as in
            :class:`~ctxrecon.metadata.ScanMetadata`.
        findings: names of :data:`FINDINGS`.

    Raises:
        InputError: an unknown finding.
    """
    if unknown := [name for name in findings if name not in FINDINGS]:
        raise InputError(f"unknown finding {unknown[0]!r}: expected some of {', '.join(FINDINGS)}")
    return torch.tensor([any(map(FINDINGS[name], pathologies)) for name in findings])


_GROUP = 16
"""Channels that are normalized together."""


class FindingClassifier(ModelMixin, ConfigMixin):
    """ResNet-18 on the zero-filled image, whose logits are those of independent findings.

    He et al., CVPR 2016, with two input channels, 11.18 million parameters. InfoMRI's ``q(z|y)``
    is categorical; findings of knees occur together, so each has a probability of its own here.
    Normalization is by groups of channels in place of the batch: a slice then gives the same alone
    and in any batch, and averaged weights need no statistics of their own.

    Args:
        findings: names of the outputs.
        width: channels of the first stage, 64 as published; each of the three others has twice as
            many as the one before.

    Raises:
        InputError: no findings, or a width that is not a positive whole number.
    """

    @register_to_config
    def __init__(self, findings: Sequence[str] = tuple(FINDINGS), width: int = 64) -> None:
        super().__init__()
        check_counts(width=width)
        if isinstance(findings, str) or not findings:
            raise InputError(f"expected names of findings, got {findings!r}")
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
        """Logits ``(batch, findings)`` float32.

        Args:
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64, of any intensity.
        """
        channels, _ = as_channels(self, zero_filled)
        features = self.stages(self.stem(channels)).mean(dim=(-2, -1))
        return self.head(features).float()


class _Block(nn.Module):
    """Two convolutions around which the input goes."""

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
    """Groups of 16 channels: of two, in images of few pixels, hardly more than signs would stay."""
    return nn.GroupNorm(math.gcd(channels, max(channels // _GROUP, 1)), channels)
