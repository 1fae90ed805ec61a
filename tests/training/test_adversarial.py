"""Objectives of critic and generator, and losses of reconstructors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.metrics import ssim
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import ReconstructionPipeline
from ctxrecon.reconstructors import Critic, UnrolledGenerator
from ctxrecon.training.reconstructor import (
    Labels,
    Objective,
    ReconstructorTraining,
    held_out_loss,
    paired_loss,
)
from ctxrecon.training.reconstructor.adversarial import (
    GRADIENT_PENALTY,
    critic_loss,
    fixed_scores,
    generator_loss,
    paired_share,
)
from ctxrecon.training.reconstructor.config import ADVERSARIAL

EVERYWHERE = torch.ones(1, 6, 6, dtype=torch.bool)


class LinearCritic(torch.nn.Module):
    """``D(x) = ⟨w, x⟩``, whose gradient is w everywhere."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.weights * images).flatten(1).sum(dim=1)


def test_wasserstein_losses_of_a_linear_critic():
    """``D(G) − D(y) + η (‖w‖ − 1)²``."""
    weights = torch.randn(2, 4, 4, generator=seeded(0))
    critic = LinearCritic(weights)
    real, fake = torch.randn(2, 3, 2, 4, 4, generator=seeded(1))
    loss = critic_loss("wgan_gp", critic, real, fake, torch.rand(3))
    penalty = GRADIENT_PENALTY * (weights.norm() - 1) ** 2
    torch.testing.assert_close(loss, critic(fake) - critic(real) + penalty)
    torch.testing.assert_close(generator_loss("wgan_gp", critic(fake)), -critic(fake))
    (gradient,) = torch.autograd.grad(loss.mean(), critic.weights)
    expected = (fake - real).mean(dim=0)
    expected = expected + 2 * GRADIENT_PENALTY * (1 - 1 / weights.norm()) * weights
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lsgan", "entropic"])
def test_other_losses(kind):
    scores = torch.tensor([0.3, -1.2])
    critic = LinearCritic(torch.ones(1, 1, 1))
    real = scores[:, None, None, None]
    fake = real + 1
    judged = critic_loss(kind, critic, real, fake, torch.rand(2))
    if kind == "lsgan":
        expected = 0.5 * (scores + 1) ** 2 + 0.5 * (scores - 1) ** 2
        played = 0.5 * (scores - 1) ** 2
    else:
        expected = -scores.sigmoid().log() - (1 - (scores + 1).sigmoid()).log()
        played = -scores.sigmoid().log()
    torch.testing.assert_close(judged, expected)
    torch.testing.assert_close(generator_loss(kind, scores), played)


def test_fixed_scores_move_the_images_alone():
    critic = Critic()
    images = torch.randn(2, 2, 16, 16, requires_grad=True)
    scores = fixed_scores(critic, images)
    torch.testing.assert_close(scores, critic(images))
    scores.sum().backward()
    assert present(images.grad).any()
    assert all(value.grad is None for value in critic.parameters())


def test_hybrid_schedule():
    steps = torch.tensor([0, 500, 750, 1000, 4000])
    shares = paired_share(steps, 500, 1000, 0.99)
    torch.testing.assert_close(shares, torch.tensor([1.0, 1.0, 0.995, 0.99, 0.99]))


def test_l1_and_the_gaussian_likelihood():
    target = complex_noise((2, 6, 6), seeded(0))
    images = target + (3 - 4j)
    torch.testing.assert_close(
        paired_loss("l1", images, None, target, EVERYWHERE), torch.full((2,), 3.5)
    )
    std = torch.full((2, 6, 6), 2.0, requires_grad=True)
    loss = paired_loss("gaussian", images, std, target, EVERYWHERE)
    torch.testing.assert_close(loss, torch.full((2,), 25 / 4 + 2 * math.log(2)))
    loss.sum().backward()
    assert (present(std.grad) < 0).all()  # the error of 5 is larger than what was predicted
    best = torch.full((2, 6, 6), 5.0, requires_grad=True)
    paired_loss("gaussian", images, best, target, EVERYWHERE).sum().backward()
    assert float(present(best.grad).abs().max()) < 1e-5


def test_ssim_loss_is_that_of_the_metric():
    target = complex_noise((2, 32, 30), seeded(0))
    images = target + 0.3 * complex_noise((2, 32, 30), seeded(1))
    loss = paired_loss("ssim", images, None, target, EVERYWHERE)
    expected = paired_loss("l1", images, None, target, EVERYWHERE) + 1 - ssim(images, target)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-4)


def test_held_out_samples_alone_count():
    """One coil: a change of samples that are not held out changes nothing."""
    operator, y, image = measurement(coils=1)
    held_out = operator.mask.clone()
    held_out[..., ::2] = False
    ones = torch.ones_like(image)[:, None]
    batch = {"kspace": y, "held_out": held_out, "coil_maps": ones}
    assert float(held_out_loss(image, batch).max()) < 1e-5
    torch.testing.assert_close(held_out_loss(0 * image, batch), torch.full((2,), 2.0))
    half = held_out_loss(image / 2, batch)
    torch.testing.assert_close(half, torch.full((2,), 1.0), rtol=1e-4, atol=1e-4)
    other = image + 7 * ifft2c(~held_out * torch.ones_like(y))[:, 0]
    torch.testing.assert_close(held_out_loss(other, batch), torch.zeros(2), rtol=0, atol=1e-5)
    scrambled = batch | {"kspace": torch.where(held_out, y, 3 - 2j)}
    assert torch.equal(held_out_loss(image / 2, scrambled), held_out_loss(image / 2, batch))


def test_the_likelihood_counts_what_some_coil_sees():
    target = complex_noise((1, 6, 6), seeded(0))
    std, inside = torch.full((1, 6, 6), 2.0), torch.zeros(1, 6, 6, dtype=torch.bool)
    inside[..., :3] = True
    images = torch.where(inside, target + (3 - 4j), target + 100)
    loss = paired_loss("gaussian", images, std, target, inside)
    torch.testing.assert_close(loss, torch.tensor([25 / 4 + 2 * math.log(2)]))


def unpaired_training(
    adversarial: str, **options: Any
) -> tuple[ReconstructorTraining, dict[str, torch.Tensor]]:
    """A small generator with a critic of magnitudes, and a batch of step 4."""
    torch.manual_seed(0)
    pipe = ReconstructionPipeline(UnrolledGenerator(width=4, iterations=1, blocks=1))
    objective = Objective("none", adversarial, **options)
    operator, y, image = measurement(shape=(24, 24))
    batch = {
        "kspace": y,
        "mask": operator.mask,
        "coil_maps": present(operator.coil_maps),
        "label": image.abs(),
        "step": torch.tensor([4, 4]),
        "share": torch.tensor([0.3, 0.8]),
    }
    return ReconstructorTraining(pipe, objective, Labels("disjoint", 3, magnitude=True)), batch


@pytest.mark.parametrize("consistency", [0.0, 2.0])
@pytest.mark.parametrize("adversarial", ADVERSARIAL)
def test_each_player_gets_the_gradient_of_its_own_loss(adversarial, consistency):
    """One backward pass of the sum is what two passes would be."""
    model, batch = unpaired_training(adversarial, consistency=consistency)
    network, image = model.reconstructor, batch["label"]
    operator, y = CartesianSense(batch["mask"], batch["coil_maps"]), batch["kspace"]
    model(batch).mean().backward()
    found = {name: present(value.grad).clone() for name, value in model.named_parameters()}
    fake = network(operator, y).images
    critic = model.critic
    played = generator_loss(adversarial, critic(critic.seen(fake))).mean()
    away = operator(fake) - operator.mask * y
    played = played + consistency * (away.abs().square().sum(dim=(1, 2, 3)).sqrt()).mean()
    by_generator = torch.autograd.grad(played, list(network.parameters()))
    for (name, _), gradient in zip(network.named_parameters(), by_generator, strict=True):
        torch.testing.assert_close(found[f"reconstructor.{name}"], gradient)
    judged = critic_loss(
        adversarial, critic, critic.seen(image), critic.seen(fake.detach()), batch["share"]
    ).mean()
    by_critic = torch.autograd.grad(judged, list(critic.parameters()))
    for (name, _), gradient in zip(critic.named_parameters(), by_critic, strict=True):
        torch.testing.assert_close(found[f"critic.{name}"], gradient)


@pytest.mark.parametrize(("step", "plays"), [(3, False), (4, False), (5, True)])
def test_the_critic_is_trained_at_every_step_and_the_generator_at_some(step, plays):
    """Where it is not, it gets no gradient at all, so that its optimiser rests too."""
    model, batch = unpaired_training("wgan_gp", critic_steps=3, critic_width=6)
    always, _ = unpaired_training("wgan_gp", critic_width=6)
    batch["step"] = torch.tensor([step, step])
    for one in (model, always):
        one(batch).mean().backward()
    for (name, found), (_, expected) in zip(
        model.named_parameters(), always.named_parameters(), strict=True
    ):
        if plays or name.startswith("critic."):
            assert torch.equal(present(found.grad), present(expected.grad)), name
        else:
            assert found.grad is None, name


@pytest.mark.parametrize(
    ("objective", "labels", "sentence"),
    [
        (Objective("l2"), Labels(), "unknown loss 'l2'"),
        (Objective("l1", "wgan"), Labels(), "unknown adversarial loss"),
        (Objective("none"), Labels(), "nothing to train for"),
        (Objective("l1", "wgan_gp"), Labels("disjoint", 4), "only a critic"),
        (Objective("none"), Labels("partial", 4), "only a critic"),
        (Objective("l1"), Labels("none"), "held-out"),
        (Objective("gaussian"), Labels(), "--predict_std together"),
        (Objective("l1", paired_share=1.2), Labels(), "paired_share` from 0 to 1"),
        (Objective("l1", consistency=-1), Labels(), "consistency.* -1"),
        (Objective("l1", critic_steps=0), Labels(), "critic_steps.* 0"),
    ],
)
def test_what_does_not_belong_together(objective, labels, sentence):
    pipe = ReconstructionPipeline(UnrolledGenerator(width=4, iterations=1))
    with pytest.raises(InputError, match=sentence):
        ReconstructorTraining(pipe, objective, labels)
