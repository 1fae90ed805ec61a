"""A fully sampled image of another contrast helps to reconstruct an undersampled one."""

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
"""What the reconstruction sees of the reference."""


@dataclass
class CrossModalOutput(BaseOutput):
    """What a cross-modal network makes of a measurement and a reference.

    Attributes:
        images: ``(batch, ny, nx)`` complex64, the reconstruction.
        aligned: ``(batch, ny, nx)`` complex64, the reference on the grid of the reconstruction.
        synthetic: ``(batch, ny, nx)`` complex64, what the aligned reference would look like in the
            contrast of the measurement.
        displacement: ``(batch, 2, ny, nx)`` float32 in pixels, see
            :mod:`ctxrecon.reconstructors.warp`.
    """

    images: Tensor
    aligned: Tensor
    synthetic: Tensor
    displacement: Tensor


@dataclass(frozen=True)
class Normalized:
    """A measurement and a reference at the intensity that the networks see.

    Attributes:
        operator: A.
        zero_filled: ``Aᴴ y``, ``(batch, ny, nx)``, 99 % quantile of the magnitude at 1.
        reference: x₁, likewise.
        scale: what ``Aᴴ y`` was divided by, ``(batch, 1, 1)``.
        reference_scale: likewise for the reference.
        embeds: of prompts.
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
        width: features of the U-Nets at full size.
        depth: their halvings.
        cascades: their number.
        text_width: of prompts that modulate them.
        guided: whether each U-Net sees another image beside.
        data_term: whether each cascade takes a step towards the data.
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
        """The image ``(batch, ny, nx)`` that comes of the one to start with."""
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
    """The blocks of :class:`~ctxrecon.reconstructors.HRUNet`, for which a guide is a contrast.

    It comes first, fully sampled: blocks see it as they see what is measured, and hand their
    features on. What they would make of it is not used.

    Args:
        width: features of the U-Nets at full size.
        depth: their halvings.
        cascades: their number.
        text_width: of prompts that modulate them.
    """

    def __init__(self, width: int, depth: int, cascades: int, text_width: int | None) -> None:
        super().__init__()
        self.networks = unet_cascade(width, depth, cascades, text_width, handed=depth + 1)

    def forward(self, data: Normalized, start: Tensor, guide: Tensor | None = None) -> Tensor:
        """The image ``(batch, ny, nx)`` that comes of the one to start with."""
        states: list[Tensor] = []
        if guide is not None:
            everything = torch.ones((1, 1, *guide.shape[1:]), dtype=torch.bool, device=guide.device)
            whole = CartesianSense(everything)
            _, states = run_cascade(self.networks, whole, guide, data.embeds, states)
        return run_cascade(self.networks, data.operator, start, data.embeds, states)[0]


class Aligner(nn.Module):
    """The displacement of a reference onto an image, from the magnitudes of both.

    A U-Net whose last layer is 0 to start with, and with it the displacement. Nothing in it is
    normalized: instance normalization takes the mean of every feature away, and with it a shift of
    the whole image.

    Args:
        width: features at full size; twice as many below.
        depth: halvings.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.network = ResidualUNet(2, width, depth, None, widest=2 * width)

    def forward(self, reference: Tensor, images: Tensor) -> Tensor:
        """``(batch, 2, ny, nx)`` float32 in pixels of complex ``(batch, ny, nx)``."""
        seen = torch.stack([reference.abs(), images.abs()], dim=1)
        return self.network(seen.to(next(self.parameters()).dtype), None).float()


class CrossModal(ModelMixin, ConfigMixin):
    """Reconstruct with a fully sampled reference of another contrast that need not be aligned.

    Three networks, Wang et al., arXiv:2305.02774: the reconstruction ``x_R = R(Aᴴy)``, cascades of
    :class:`~ctxrecon.reconstructors.VarNet`; the spatial transport ``x_A(p) = x₁(p + ϕ(p))`` with
    the displacement ``ϕ = OT_S(x₁, x_R)``; and the modal transport ``x_G = OT_M(x_A)``, cascades
    without a data term. As printed there, R sees ``Aᴴy`` alone (``guidance="none"``). With
    "synthetic" its U-Nets see ``x_G`` beside their image, with "aligned" ``x_A``: the first pass
    sees an image of zeros, each further one what came of the pass before. Which of these the
    authors ran, the paper leaves open.

    Intensities are divided by the 99 % quantiles of the magnitudes of ``Aᴴ y`` and of the
    reference, and multiplied afterwards. No layer takes statistics over the batch, and any matrix
    size is taken.

    Args:
        width: features of the U-Nets of R and OT_M at full size.
        depth: their halvings.
        cascades: of R.
        synthesis_cascades: of OT_M.
        align_width: features of OT_S at full size.
        align_depth: its halvings.
        guidance: "none", "synthetic" or "aligned".
        passes: how often the three networks run one after the other; 1 where R is not guided, and
            where the reference is not aligned, since the guide then never changes.
        alignment: whether there is an OT_S; without it ``x_A = x₁``.
        data_consistency: whether the cascades of OT_M take steps towards ``y`` as well.
        recurrent: whether R is the recurrent network of several contrasts,
            :class:`~ctxrecon.reconstructors.HRUNet`, with the guide as the contrast before.
        text_width: width of the prompt embeddings that modulate the features of R and OT_M;
            ``None`` for a network that reads no prompt.

    Raises:
        InputError: sizes that are not whole numbers from 1 on, an unknown guidance, or a number of
            passes that it cannot use.
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

    def forward(
        self,
        operator: SenseOperator,
        y: Tensor,
        reference: Tensor,
        prompt_embeds: Tensor | None = None,
    ) -> CrossModalOutput:
        """Reconstruct a batch of slices.

        Args:
            operator: ``A``; its mask may differ from slice to slice.
            y: ``(batch, coils, ny, nx)`` complex64, zero outside the mask.
            reference: ``(batch, ny, nx)`` complex64, fully sampled, of the same field of view.
            prompt_embeds: ``(batch, text_width)``, see :class:`~.base.Reconstructor`.

        Raises:
            InputError: an operator of another kind, a reference of another shape or type, or
                prompt embeddings as in :class:`~.base.Reconstructor`.
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
        """The arguments of :meth:`forward`, checked, at the intensity that the networks see."""
        if not isinstance(operator, CartesianSense | WeightedSense):
            raise InputError(
                f"{type(self).__name__} takes Cartesian k-space with one set of coil maps, got "
                f"data of a {type(operator).__name__}: give coil_maps of one set, such as "
                "estimate_coil_maps(kspace, mask, num_maps=1)"
            )
        shape = (len(y), *y.shape[-2:])
        if tuple(reference.shape) != shape or not reference.is_complex():
            raise InputError(
                f"expected a complex reference of shape {shape}, as the images have, got "
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
        """Every pass, at the networks' intensity.

        Args:
            data: from :meth:`normalize`.
            synthesis: whether references are synthesized which R does not see; without, the
                aligned one stands for the synthetic one, and where R sees neither the given one
                for both.
        """
        guided = self.guidance != "none"
        early = guided and self.aligner is None
        guide = torch.zeros_like(data.zero_filled) if guided else None
        aligned, displacement = data.reference, self._at_rest(data)
        synthetic = aligned
        if early:
            if synthesis or self.guidance == "synthetic":
                synthetic = self.synthesize(data, aligned)
            guide = self._guide(aligned, synthetic)
        done = []
        for number in range(1, self.passes + 1):
            images = self.reconstructor(data, data.zero_filled, guide)
            last = number == self.passes
            if not early and (guided or synthesis):
                aligned, displacement = self.align(data, images)
                seen = self.guidance == "synthetic" and not last
                synthetic = self.synthesize(data, aligned) if synthesis or seen else aligned
            if guided and not early:
                guide = self._guide(aligned, synthetic)
            done.append(CrossModalOutput(images, aligned, synthetic, displacement))
        return done

    def align(self, data: Normalized, images: Tensor) -> tuple[Tensor, Tensor]:
        """The reference on the grid of images at the networks' intensity, and its displacement."""
        if self.aligner is None:
            return data.reference, self._at_rest(data)
        displacement = self.aligner(data.reference, images)
        return warp(data.reference, displacement), displacement

    def synthesize(self, data: Normalized, aligned: Tensor) -> Tensor:
        """The aligned reference in the contrast of the measurement."""
        return self.synthesizer(data, aligned)

    def _guide(self, aligned: Tensor, synthetic: Tensor) -> Tensor:
        """What the next pass of R sees."""
        return aligned if self.guidance == "aligned" else synthetic

    @staticmethod
    def _at_rest(data: Normalized) -> Tensor:
        """A displacement of 0."""
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
"""Sizes by name: that of the paper, 27.4 million parameters with its two critics, and a small one
for matrices of up to 128 × 128 on a CPU."""


def _check_passes(guidance: str, passes: int, alignment: bool) -> None:
    """Refuse passes that change nothing, and one that nothing guides."""
    if guidance not in GUIDANCE:
        raise InputError(f"unknown guidance {guidance!r}: expected one of {', '.join(GUIDANCE)}")
    changing = guidance != "none" and alignment
    if changing and passes < 2:
        raise InputError(
            f"with the {guidance} reference as a guide the first pass sees none: give passes=2 or "
            "more"
        )
    if not changing and passes > 1:
        raise InputError(
            f"expected passes=1 where {'no' if guidance == 'none' else 'an unaligned'} reference "
            f"guides the reconstruction, since all passes would be alike, got {passes}"
        )
