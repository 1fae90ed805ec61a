"""The critic of adversarial training."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.reconstructors import (
    Critic,
)


class TestCritic:
    """Seven convolutions and a mean."""

    def test_the_papers_layers(self):
        layers = Critic().layers
        assert [layer.out_channels for layer in layers] == [4, 8, 16, 32, 32, 32, 1]
        assert [layer.stride[0] for layer in layers] == [2, 2, 2, 2, 1, 1, 1]
        assert Critic(magnitude=True).layers[0].in_channels == 1
        wider = Critic(width=6).layers
        assert [layer.out_channels for layer in wider] == [6, 12, 24, 48, 48, 48, 1]

    def test_scores_of_each_image_alone(self):
        critic = Critic()
        images = complex_noise((3, 33, 40), seeded(0))
        together = critic(critic.seen(images))
        alone = torch.cat([critic(critic.seen(images[i : i + 1])) for i in range(3)])
        torch.testing.assert_close(together, alone)
        assert together.shape == (3,)

    def test_magnitudes_of_complex_and_of_real_images_are_one(self):
        critic = Critic(magnitude=True)
        images = complex_noise((2, 16, 16), seeded(0)).requires_grad_()
        torch.testing.assert_close(critic.seen(images), critic.seen(images.abs()))
        critic.seen(images * 0).sum().backward()  # the root at zero
        assert torch.isfinite(torch.view_as_real(present(images.grad))).all()

    def test_real_images_for_a_critic_of_complex_ones(self):
        with pytest.raises(InputError, match="magnitude=True"):
            Critic().seen(torch.ones(1, 8, 8))
