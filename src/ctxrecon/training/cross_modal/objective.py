"""Losses of cross-modal training, and the order in which its five parts are trained.

Wang et al., arXiv:2305.02774. The critics are trained to be large on synthetic images and small on
real ones, and the networks minimize them: the opposite of the usual sign. The paper does not
specify how losses are reduced; here each is averaged over pixels, which makes its weights balanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import CrossModalPipeline
from ctxrecon.reconstructors import CrossModal, SpectralCritic
from ctxrecon.reconstructors.cross_modal import Normalized
from ctxrecon.reconstructors.warp import endpoint_error, smoothness
from ctxrecon.training.loop import clip_gradients, parts_of
from ctxrecon.training.reconstructor.adversarial import fixed_scores
from ctxrecon.training.reconstructor.objective import paired_loss

RECONSTRUCTOR = "reconstructor.reconstructor"
ALIGNER = "reconstructor.aligner"
SYNTHESIZER = "reconstructor.synthesizer"
ALIGNMENT_CRITIC = "alignment_critic"
SYNTHESIS_CRITIC = "synthesis_critic"
CRITICS = (SYNTHESIS_CRITIC, ALIGNMENT_CRITIC)
PARTS = (RECONSTRUCTOR, ALIGNER, SYNTHESIZER, *CRITICS)
"""Parts θ, s, m, ω and γ, each trained as by its own optimizer."""

JOINT = "joint"
REGISTRATION = "registration"
_REFRESH = "refresh"


@dataclass(frozen=True)
class Phase:
    """Phase of an iteration.

    Attributes:
        name: Name of the loss, passed to the model.
        parts: Parts that are updated; none if only images are recomputed.
    """

    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """Weights and order of the losses; see :class:`~.config.CrossModalConfig`.

    Attributes:
        reconstruction: Weight α of ``‖x₂ − x_R‖₁``, averaged over the passes.
        alignment: Weight β of ``L_G = D_γ(OT_M ∘ OT_S(x₁)) − D_γ(x₂)``.
        synthesis: Weight δ of ``L_OTM = D_ω(OT_M(x_A)) − D_ω(x₂)``.
        smoothness: Weight η of :func:`~ctxrecon.reconstructors.warp.smoothness`, averaged over the
            passes.
        paired: Weight of ``‖|x₂| − |x_G|‖₁``, not in the paper. It uses magnitudes, since the phase
            of one contrast cannot be derived from that of another.
        motion: Weight of ``‖ϕ − u‖`` in pixels inside the body, averaged over the passes, not in
            the paper. The true motion u is known for phantoms only.
        order: "joint", "alternating" or "both"; "registration" trains only s, by ``‖ϕ − u‖``.
        rounds: Number I of alternations.
        smooth_rounds: If true, the smoothness is used in the alternations as well.
    """

    reconstruction: float = 3000.0
    alignment: float = 1.0
    synthesis: float = 1.0
    smoothness: float = 1000.0
    paired: float = 0.0
    motion: float = 0.0
    order: str = "both"
    rounds: int = 1
    smooth_rounds: bool = False

    @property
    def synthesizes(self) -> bool:
        """``True`` if any loss uses the synthetic image."""
        return max(self.alignment, self.synthesis, self.paired) > 0

    def phases(self) -> list[Phase]:
        """Return the phases of an iteration in order; for "both" these are Algorithm 1.

        "joint" trains the critics once after each joint step. "alternating" trains only θ by the
        joint loss. Phases and critics whose loss has no weight are left out.
        """
        if self.order == REGISTRATION:
            return [Phase(REGISTRATION, (ALIGNER,))]
        joint = (RECONSTRUCTOR, ALIGNER, SYNTHESIZER)
        trained = joint[:1] if self.order == "alternating" else joint
        found = [Phase(JOINT, trained)]
        judged = [
            *([Phase(SYNTHESIS_CRITIC, (SYNTHESIS_CRITIC,))] if self.synthesis else []),
            *([Phase(ALIGNMENT_CRITIC, (ALIGNMENT_CRITIC,))] if self.alignment else []),
        ]
        if self.order == "joint":
            return found + judged
        one = []
        if self.synthesis:
            one += [Phase(SYNTHESIZER, (SYNTHESIZER,)), judged[0]]
        if self.alignment:
            one += [Phase(ALIGNER, (ALIGNER,)), judged[-1]]
        for number in range(self.rounds if one else 0):
            found += [*([Phase(_REFRESH, ())] if number else []), *one]
        return found


@dataclass
class State:
    """State passed between the phases of an iteration, without gradients.

    Attributes:
        data: Batch at the networks' intensity.
        target: Target x₂ at the networks' intensity.
        images: Images that the reference is aligned to: the reconstruction x_R, or ``Aᴴy`` if the
            network has a single, guided pass.
        aligned: Aligned reference ``x_A^{i−1}``.
        synthetic: Synthetic image ``x_G^{i−1}``; after the phase of the aligner ``x_G^{i−½}``.
    """

    data: Normalized
    target: Tensor
    images: Tensor
    aligned: Tensor
    synthetic: Tensor


class CrossModalTraining(nn.Module):
    """Networks, critics and text encoder as a module that returns each sample's loss of a phase.

    Args:
        pipe: Pipeline whose networks are trained; its text encoder is frozen.
        objective: Training objective.
        critic_width: Number of features of the critics, see
            :class:`~ctxrecon.reconstructors.SpectralCritic`.
        critic_depth: Number of resolutions of the critics.
        seed: Random seed of the critics' initial weights.
    """

    def __init__(
        self,
        pipe: CrossModalPipeline,
        objective: Objective,
        *,
        critic_width: int = 64,
        critic_depth: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.reconstructor: CrossModal = pipe.reconstructor
        self.text_encoder: Any = pipe.text_encoder
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(False)
        self.objective = objective
        self.alignment_critic: Any = None
        self.synthesis_critic: Any = None
        judges = objective.order != REGISTRATION
        if judges and objective.alignment:
            self.alignment_critic = _critic(critic_width, critic_depth, seed)
        if judges and objective.synthesis:
            self.synthesis_critic = _critic(critic_width, critic_depth, seed + 1)

    def forward(
        self, batch: dict[str, Tensor], phase: str = JOINT, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Return the loss of each sample, ``(batch,)``, and the state for the next phase.

        Args:
            batch: Batch of :class:`~.data.PairSamples`.
            phase: Name of a :class:`Phase`.
            state: State of the previous phase; ``None`` for the joint phase, which comes first.
        """
        if phase == REGISTRATION:
            return self._registration(batch)
        if phase == JOINT or state is None:
            return self._joint(batch)
        network, objective = self.reconstructor, self.objective
        if phase == SYNTHESIZER:  # line 9
            synthetic = network.synthesize(state.data, state.aligned)
            return _transported(self.synthesis_critic, synthetic, state.target), state
        if phase in CRITICS:  # lines 10 and 13
            critic = getattr(self, phase)
            real, fake = critic.seen(state.target), critic.seen(state.synthetic)
            with torch.autocast(real.device.type, enabled=False):
                of_real, of_fake = critic(torch.cat([real, fake])).chunk(2)
            return of_real - of_fake, state
        if phase == ALIGNER:  # lines 11 and 12
            with torch.no_grad():
                state.synthetic = network.synthesize(state.data, state.aligned)
            aligned, displacement = network.align(state.data, state.images)
            synthetic = network.synthesize(state.data, aligned)
            loss = _transported(self.alignment_critic, synthetic, state.target)
            if objective.smooth_rounds:
                loss = loss + objective.smoothness * smoothness(displacement, aligned)
            return loss, state
        state.aligned, _ = network.align(state.data, state.images)  # lines 14 and 15
        state.synthetic = network.synthesize(state.data, state.aligned)
        return torch.zeros(len(state.target), device=state.target.device), state

    def _normalized(self, batch: dict[str, Tensor]) -> tuple[Normalized, Tensor]:
        """Return measurement, reference and x₂ of a batch at the networks' intensity."""
        embeds = None
        if self.text_encoder is not None:
            embeds = self.text_encoder(batch["tokens"]).pooler_output
        operator = CartesianSense(batch["mask"], batch["coil_maps"])
        data = self.reconstructor.normalize(operator, batch["kspace"], batch["reference"], embeds)
        return data, batch["target"] / data.scale

    def _registration(self, batch: dict[str, Tensor]) -> tuple[Tensor, State]:
        """Return ``‖ϕ − u‖`` in pixels, averaged over the true x₂ and ``Aᴴy`` in place of x_R.

        These are the best and the worst image that the aligner may receive later.
        """
        data, target = self._normalized(batch)
        losses = []
        for images in (target, data.zero_filled):
            _, displacement = self.reconstructor.align(data, images)
            losses.append(endpoint_error(displacement, batch["displacement"], batch["inside"]))
        state = State(data, target, target, data.reference, data.reference)
        return torch.stack(losses).mean(dim=0), state

    def _joint(self, batch: dict[str, Tensor]) -> tuple[Tensor, State]:
        """Return the weighted sum of all losses, formula (10); lines 2 to 7 of Algorithm 1."""
        objective = self.objective
        data, target = self._normalized(batch)
        passes = self.reconstructor.run(data, synthesis=objective.synthesizes)
        everywhere = torch.ones_like(target, dtype=torch.bool)
        loss = torch.zeros(len(target), device=target.device)
        for one in passes:
            distance = paired_loss("l1", one.images, None, target, everywhere)
            loss = loss + objective.reconstruction * distance / len(passes)
            if objective.smoothness:
                change = smoothness(one.displacement, one.aligned)
                loss = loss + objective.smoothness * change / len(passes)
            if objective.motion:
                error = endpoint_error(one.displacement, batch["displacement"], batch["inside"])
                loss = loss + objective.motion * error / len(passes)
        last = passes[-1]
        if objective.alignment:
            moved = _transported(self.alignment_critic, last.synthetic, target)
            loss = loss + objective.alignment * moved
        if objective.synthesis:
            moved = _transported(self.synthesis_critic, last.synthetic, target)
            loss = loss + objective.synthesis * moved
        if objective.paired:
            difference = (last.synthetic.abs() - target.abs()).abs()
            loss = loss + objective.paired * difference.flatten(1).mean(dim=1)
        fixed = data.zero_filled if self.reconstructor.guided_at_once else last.images
        made = (fixed, last.aligned, last.synthetic)
        return loss, State(data, target, *(image.detach() for image in made))


def _critic(width: int, depth: int, seed: int) -> SpectralCritic:
    """Return a new critic with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpectralCritic(width, depth)


def _transported(critic: Any, synthetic: Tensor, target: Tensor) -> Tensor:
    """Return ``D(x_G) − D(x₂)`` of each sample, without a gradient for the critic."""
    fake, real = critic.seen(synthetic), critic.seen(target)
    with torch.autocast(fake.device.type, enabled=False):
        of_fake, of_real = fixed_scores(critic, torch.cat([fake, real])).chunk(2)
    return of_fake - of_real


class Alternating:
    """Steps of one batch, phase by phase: an :data:`~ctxrecon.training.loop.Iteration`.

    Gradients of all parts outside the phase are dropped before the optimizer step, which then
    leaves these parts and their moments unchanged.

    Args:
        phases: Phases of an iteration.
        max_grad_norm: Norm above which the gradients of each part are clipped.
    """

    def __init__(self, phases: Sequence[Phase], max_grad_norm: float) -> None:
        self.phases, self.max_grad_norm = phases, max_grad_norm

    def __call__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: Any, batch: Any
    ) -> Tensor:
        """Run the phases on a batch and return the joint loss."""
        state, losses = None, []
        parts = parts_of(model, PARTS)
        for phase in self.phases:
            # A network without an aligner has nothing to train in the phase of the aligner.
            trains = not parts.keys().isdisjoint(phase.parts)
            with torch.set_grad_enabled(trains):
                loss, state = model(batch, phase.name, state)
            losses.append(loss.mean())
            if not trains:
                continue
            accelerator.backward(losses[-1])
            for part, values in parts.items():
                if part not in phase.parts:
                    for value in values:
                        value.grad = None
            clip_gradients(accelerator, model, self.max_grad_norm, PARTS)
            optimizer.step()
            optimizer.zero_grad()
        return losses[0]
