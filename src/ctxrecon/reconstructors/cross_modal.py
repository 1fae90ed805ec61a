"""Reconstruction guided by a fully sampled image of another contrast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.operators import CartesianSense, MaskedSense, SenseOperator, WeightedSense
from ctxrecon.reconstructors.base import check_embeds, intensity
from ctxrecon.reconstructors.blocks import ResidualUNet, UNet, on_image
from ctxrecon.reconstructors.multi_contrast import unet_cascade
from ctxrecon.reconstructors.recurrent_blocks import run_cascade
from ctxrecon.reconstructors.varnet import descend
from ctxrecon.reconstructors.warp import warp

GUIDANCE = ("none", "synthetic", "aligned")
"""Forms of the reference that can guide the reconstruction."""


@dataclass
class CrossModalOutput(BaseOutput):
    """Result of a cross-modal reconstruction.

    Attributes:
        images: Reconstructed images ``(batch, ny, nx)``, complex64.
        aligned: Reference warped to the grid of the reconstruction, ``(batch, ny, nx)`` complex64.
        synthetic: Aligned reference translated to the contrast of the measurement,
            ``(batch, ny, nx)`` complex64.
        displacement: Displacement in pixels, ``(batch, 2, ny, nx)`` float32, see
            :mod:`ctxrecon.reconstructors.warp`.
    """

    images: Tensor
    aligned: Tensor
    synthetic: Tensor
    displacement: Tensor


@dataclass(frozen=True)
class Normalized:
    """Measurement and reference at the intensity of the networks.

    Attributes:
        operator: Forward operator A.
        zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)``, with the 99 % quantile of
            the magnitude at 1.
        reference: Reference x₁, ``(batch, ny, nx)``, with the 99 % quantile of the magnitude at 1.
        scale: Divisor of ``Aᴴ y``, ``(batch, 1, 1)``.
        reference_scale: Divisor of the reference, ``(batch, 1, 1)``.
        embeds: Prompt embeddings ``(batch, text_width)``, or ``None``.
    """

    operator: MaskedSense
    zero_filled: Tensor
    reference: Tensor
    scale: Tensor
    reference_scale: Tensor
    embeds: Tensor | None


class Cascades(nn.Module):
    """Cascades of :class:`~ctxrecon.reconstructors.VarNet`, with or without a data term.

    Args:
        width: Number of features of the U-Nets at full resolution.
        depth: Number of downsampling steps of the U-Nets.
        cascades: Number of cascades.
        text_width: Width of the prompt embeddings, or ``None``.
        guided: If true, each U-Net receives a guide image as an additional input.
        data_term: If true, each cascade includes a gradient step on the data term.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        cascades: int,
        text_width: int | None,
        *,
        guided: bool = False,
        data_term: bool = True,
    ) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.ones(cascades)) if data_term else None
        self.networks = nn.ModuleList(
            UNet(2, width, depth, text_width, beside=2 if guided else 0) for _ in range(cascades)
        )

    def forward(self, data: Normalized, start: Tensor, guide: Tensor | None = None) -> Tensor:
        """Return the image ``(batch, ny, nx)`` after all cascades."""
        if self.steps is None:
            for network in self.networks:
                start = start + on_image(network, start, data.embeds, guide)
            return start
        image, _ = descend(
            self.networks,
            self.steps,
            data.operator,
            data.zero_filled,
            data.embeds,
            start=start,
            beside=guide,
        )
        return image


class RecurrentCascades(nn.Module):
    """Blocks of :class:`~ctxrecon.reconstructors.HRUNet` that treat the guide as a contrast.

    The guide is processed first, as a fully sampled contrast whose features the blocks pass on to
    the measured one. Its own reconstruction is discarded.

    Args:
        width: Number of features of the U-Nets at full resolution.
        depth: Number of downsampling steps of the U-Nets.
        cascades: Number of blocks.
        text_width: Width of the prompt embeddings, or ``None``.
    """

    def __init__(self, width: int, depth: int, cascades: int, text_width: int | None) -> None:
        super().__init__()
        self.networks = unet_cascade(width, depth, cascades, text_width, handed=depth + 1)

    def forward(self, data: Normalized, start: Tensor, guide: Tensor | None = None) -> Tensor:
        """Return the image ``(batch, ny, nx)`` after all blocks."""
        states: list[Tensor] = []
        if guide is not None:
            everything = torch.ones((1, 1, *guide.shape[1:]), dtype=torch.bool, device=guide.device)
            whole = CartesianSense(everything)
            _, states = run_cascade(self.networks, whole, guide, data.embeds, states)
        return run_cascade(self.networks, data.operator, start, data.embeds, states)[0]


class Aligner(nn.Module):
    """Displacement of a reference onto an image, predicted from the magnitudes of both.

    The last layer of the U-Net, and with it the displacement, is initially 0. There is no
    normalization: instance normalization removes the mean of every feature, and with it a shift of
    the whole image.

    Args:
        width: Number of features at full resolution; lower levels have twice as many.
        depth: Number of downsampling steps.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.network = ResidualUNet(2, width, depth, None, widest=2 * width)

    def forward(self, reference: Tensor, images: Tensor) -> Tensor:
        """Return the displacement ``(batch, 2, ny, nx)``, float32 in pixels."""
        seen = torch.stack([reference.abs(), images.abs()], dim=1)
        return self.network(seen.to(next(self.parameters()).dtype), None).float()


class CrossModal(ModelMixin, ConfigMixin):
    """Reconstruction with a fully sampled, possibly misaligned reference of another contrast.

    Wang et al., arXiv:2305.02774, with three networks. The reconstruction ``x_R = R(Aᴴy)`` consists
    of cascades of :class:`~ctxrecon.reconstructors.VarNet`. The spatial transport
    ``x_A(p) = x₁(p + ϕ(p))`` uses the displacement ``ϕ = OT_S(x₁, x_R)``. The modal transport
    ``x_G = OT_M(x_A)`` consists of cascades without a data term. As printed in the paper, R
    receives ``Aᴴy`` only (``guidance="none"``). With "synthetic" its U-Nets also receive ``x_G``,
    with "aligned" ``x_A``: the first pass receives an image of zeros, and each further pass the
    result of the previous one. In a single pass they receive the reference aligned to ``Aᴴy``,
    ``ϕ = OT_S(x₁, Aᴴy)``, so that R never runs without a guide. The paper leaves open which variant
    its authors ran.

    Data are divided by the 99 % quantiles of the magnitudes of ``Aᴴ y`` and of the reference, and
    results are multiplied by them. No layer uses batch statistics, and any matrix size is
    accepted.

    Args:
        width: Number of features of the U-Nets of R and OT_M at full resolution.
        depth: Number of downsampling steps of the U-Nets of R and OT_M.
        cascades: Number of cascades of R.
        synthesis_cascades: Number of cascades of OT_M.
        align_width: Number of features of OT_S at full resolution.
        align_depth: Number of downsampling steps of OT_S.
        guidance: Guide of R: "none", "synthetic" or "aligned".
        passes: Number of passes through the three networks. It must be 1 if R is not guided or
            the reference is not aligned, since the guide is then constant.
        alignment: If true, the reference is aligned by OT_S; otherwise ``x_A = x₁``.
        data_consistency: If true, the cascades of OT_M include gradient steps on the data term.
        recurrent: If true, R is the recurrent multi-contrast network
            :class:`~ctxrecon.reconstructors.HRUNet`, with the guide as the preceding contrast.
        text_width: Width of the prompt embeddings that modulate the features of R and OT_M;
            ``None`` for a network without text conditioning.

    Raises:
        InputError: If a size is not a positive whole number, the guidance is unknown, or the
            number of passes does not match it.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import CrossModal
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = CrossModal(width=4, depth=2, cascades=1, synthesis_cascades=1)
        >>> y = torch.ones(1, 1, 32, 32, dtype=torch.complex64)
        >>> output = network(operator, y, reference=torch.ones_like(y)[:, 0])
        >>> output.images.shape, output.displacement.shape
        (torch.Size([1, 32, 32]), torch.Size([1, 2, 32, 32]))
    """

    @register_to_config
    def __init__(
        self,
        width: int = 18,
        depth: int = 4,
        cascades: int = 4,
        synthesis_cascades: int = 4,
        align_width: int = 32,
        align_depth: int = 4,
        guidance: str = "synthetic",
        passes: int = 2,
        alignment: bool = True,
        data_consistency: bool = False,
        recurrent: bool = False,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(
            width=width,
            depth=depth,
            cascades=cascades,
            synthesis_cascades=synthesis_cascades,
            align_width=align_width,
            align_depth=align_depth,
            passes=passes,
        )
        _check_passes(guidance, passes, alignment)
        self.guidance, self.passes, self.text_width = guidance, passes, text_width
        self.reconstructor: Cascades | RecurrentCascades = (
            RecurrentCascades(width, depth, cascades, text_width)
            if recurrent
            else Cascades(width, depth, cascades, text_width, guided=guidance != "none")
        )
        self.aligner = Aligner(align_width, align_depth) if alignment else None
        self.synthesizer = Cascades(
            width, depth, synthesis_cascades, text_width, data_term=data_consistency
        )

    @property
    def guided_at_once(self) -> bool:
        """True if R is guided in its only pass, by the reference aligned to ``Aᴴy``."""
        return self.guidance != "none" and self.passes == 1

    def forward(
        self,
        operator: SenseOperator,
        y: Tensor,
        reference: Tensor,
        prompt_embeds: Tensor | None = None,
    ) -> CrossModalOutput:
        """Reconstruct a batch of slices.

        Args:
            operator: Forward operator ``A``; its mask may differ between slices.
            y: Measured k-space ``(batch, coils, ny, nx)``, complex64, zero outside the mask.
            reference: Fully sampled reference ``(batch, ny, nx)``, complex64, with the field of
                view of the measurement.
            prompt_embeds: Prompt embeddings ``(batch, text_width)``, required by a network with
                text conditioning.

        Returns:
            The reconstruction in the units of ``y``, and the aligned and translated reference.

        Raises:
            InputError: If the operator is of another type, the reference has another shape or
                dtype, or the prompt embeddings do not match the network.
        """
        data = self.normalize(operator, y, reference, prompt_embeds)
        last = self.run(data)[-1]
        return CrossModalOutput(
            images=last.images * data.scale,
            aligned=last.aligned * data.reference_scale,
            synthetic=last.synthetic * data.scale,
            displacement=last.displacement,
        )

    def normalize(
        self,
        operator: SenseOperator,
        y: Tensor,
        reference: Tensor,
        prompt_embeds: Tensor | None = None,
    ) -> Normalized:
        """Validate the arguments of :meth:`forward` and scale them to the networks' intensity."""
        if not isinstance(operator, CartesianSense | WeightedSense):
            raise InputError(
                f"{type(self).__name__} needs Cartesian k-space with one set of coil maps, got "
                f"data of a {type(operator).__name__}: pass a single set of `coil_maps`, such as "
                "estimate_coil_maps(kspace, mask, num_maps=1)"
            )
        shape = (len(y), *y.shape[-2:])
        if tuple(reference.shape) != shape or not reference.is_complex():
            raise InputError(
                f"expected a complex `reference` of shape {shape}, like the images, got "
                f"{reference.dtype} of {tuple(reference.shape)}"
            )
        check_embeds(self, prompt_embeds, (len(y),))
        zero_filled = operator.adjoint(y)
        scale, reference_scale = intensity(zero_filled), intensity(reference)
        return Normalized(
            operator,
            zero_filled / scale,
            reference / reference_scale,
            scale,
            reference_scale,
            prompt_embeds,
        )

    def run(self, data: Normalized, *, synthesis: bool = True) -> list[CrossModalOutput]:
        """Run all passes and return their outputs at the networks' intensity.

        Args:
            data: Measurement and reference from :meth:`normalize`.
            synthesis: If true, also synthesize references that R does not receive. Otherwise the
                aligned reference is returned in place of the synthetic one, and if R is not guided
                the original reference in place of both.
        """
        guided, read = self.guidance != "none", self.guidance == "synthetic"
        if self.guided_at_once:
            found = self._transport(data, data.zero_filled, synthesis=synthesis or read)
            images = self.reconstructor(data, data.zero_filled, self._guide(*found[:2]))
            return [CrossModalOutput(images, *found)]
        guide = torch.zeros_like(data.zero_filled) if guided else None
        found = data.reference, data.reference, self._at_rest(data)
        done = []
        for number in range(1, self.passes + 1):
            last = number == self.passes
            images = self.reconstructor(data, data.zero_filled, guide)
            if guided or synthesis:
                found = self._transport(data, images, synthesis=synthesis or (read and not last))
            if guided and not last:
                guide = self._guide(*found[:2])
            done.append(CrossModalOutput(images, *found))
        return done

    def align(self, data: Normalized, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reference warped to the grid of ``images``, and its displacement."""
        if self.aligner is None:
            return data.reference, self._at_rest(data)
        displacement = self.aligner(data.reference, images)
        return warp(data.reference, displacement), displacement

    def synthesize(self, data: Normalized, aligned: Tensor) -> Tensor:
        """Translate the aligned reference to the contrast of the measurement."""
        return self.synthesizer(data, aligned)

    def _transport(
        self, data: Normalized, images: Tensor, *, synthesis: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return aligned and synthetic reference and displacement for these images."""
        aligned, displacement = self.align(data, images)
        return aligned, self.synthesize(data, aligned) if synthesis else aligned, displacement

    def _guide(self, aligned: Tensor, synthetic: Tensor) -> Tensor:
        """Return the guide of R."""
        return aligned if self.guidance == "aligned" else synthetic

    @staticmethod
    def _at_rest(data: Normalized) -> Tensor:
        """Return a displacement of 0."""
        batch, ny, nx = data.reference.shape
        return torch.zeros((batch, 2, ny, nx), device=data.reference.device)


PRESETS = {
    "paper": CrossModal,
    "small": partial(
        CrossModal,
        width=8,
        depth=3,
        cascades=3,
        synthesis_cascades=2,
        align_width=16,
        align_depth=3,
    ),
}
"""Presets by name: "paper", with 27.4 million parameters including its two critics, and "small"
for matrices of up to 128 × 128 on a CPU."""


def _check_passes(guidance: str, passes: int, alignment: bool) -> None:
    """Validate that the number of passes matches the guidance."""
    if guidance not in GUIDANCE:
        raise InputError(f"unknown `guidance` {guidance!r}: expected one of {', '.join(GUIDANCE)}")
    constant = guidance == "none" or not alignment
    if constant and passes > 1:
        raise InputError(
            f"expected passes=1 with {'no' if guidance == 'none' else 'an unaligned'} reference as "
            f"guide, since all passes would be identical, got {passes}"
        )
