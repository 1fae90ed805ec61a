"""Networks of several contrasts: information passed between them, and common properties."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian import seeded
from measured import DoubleSense, measurement, part
from narrow import present
from networks import KINDS, small_network

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c
from ctxrecon.operators import CartesianSense, WeightedSense
from ctxrecon.reconstructors import MULTI_CONTRAST, MultiContrastReconstructor, intensity
from ctxrecon.reconstructors.blocks import UNet
from ctxrecon.reconstructors.recurrent_blocks import RecurrentUNet

TEXT = 5
RECURRENT = ("gru_unet", "ru_net", "hru_net")
LOWER = [[True, False, False], [True, True, False], [True, True, True]]
DIAGONAL = [[True, False, False], [False, True, False], [False, False, True]]


def build(name: str, contrasts: int = 3, **options: Any) -> Any:
    """A small network whose zero-initialized layers are perturbed."""
    sizes = {"width": 4, "depth": 2, "blocks": 2, **options}
    return small_network(name, contrasts, **sizes).eval()


def measurements(
    contrasts: int = 3, **options: Any
) -> tuple[list[CartesianSense], torch.Tensor, torch.Tensor]:
    """An operator for each contrast, k-space and images, stacked along axis 1."""
    parts = [measurement(seed=c, **options) for c in range(contrasts)]
    operators, y, images = zip(*parts, strict=True)
    return list(operators), torch.stack(y, dim=1), torch.stack(images, dim=1)


def dependencies(network: MultiContrastReconstructor) -> list[list[bool]]:
    """Whether image i changes with measurement j, for three contrasts."""
    operators, y, _ = measurements()
    y.requires_grad_()
    images = network(operators, y).images
    reached = [
        torch.autograd.grad(images[:, i].abs().sum(), y, retain_graph=True)[0] for i in range(3)
    ]
    return [[bool(of_i[:, j].any()) for j in range(3)] for of_i in reached]


@torch.no_grad()
def silence(*layers: torch.nn.Module) -> None:
    for layer in layers:
        for value in layer.parameters():
            value.zero_()


@pytest.fixture(params=tuple(MULTI_CONTRAST))
def name(request) -> str:
    return request.param


class TestForAll:
    """Properties of every class."""

    @torch.no_grad()
    def test_a_batch_gives_what_its_slices_give(self, name):
        network = build(name, predict_std=True)
        operators, y, _ = measurements(batch=3)
        together = network(operators, y)
        for i in range(3):
            alone = network([part(operator, i) for operator in operators], y[i : i + 1])
            for one, other in zip(together.to_tuple(), alone.to_tuple(), strict=True):
                torch.testing.assert_close(one[i : i + 1], other, rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    @pytest.mark.parametrize(
        ("shape", "coils", "contrasts", "blocks"),
        [((17, 22), 3, 2, 1), ((16, 16), 1, 1, 2), ((7, 6), 2, 5, 3)],
    )
    def test_any_size(self, name, shape, coils, contrasts, blocks):
        network = build(name, contrasts, blocks=blocks, predict_std=True)
        operators, y, _ = measurements(contrasts, shape=shape, coils=coils)
        output = network(operators, y)
        assert output.images.shape == output.expected_error.shape == (2, contrasts, *shape)
        assert torch.isfinite(torch.view_as_real(output.images)).all()
        assert float(output.expected_error.min()) > 0

    @torch.no_grad()
    def test_the_gain_of_each_contrast_passes_through(self, name):
        network = build(name, predict_std=True)
        operators, y, _ = measurements()
        gain = torch.tensor([[250.0, 0.02, 1.0], [1.0, 3.0, 0.5]])
        scaled = network(operators, y * gain[..., None, None, None])
        plain = network(operators, y)
        for key in ("images", "expected_error"):
            ratio = scaled[key] / plain[key] / gain[..., None, None]
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("blocks", [1, 2, 3])
    def test_every_parameter_gets_a_gradient(self, name, blocks):
        network = build(name, blocks=blocks, text_width=TEXT, predict_std=True).train()
        operators, y, _ = measurements()
        output = network(operators, y, torch.randn(2, 3, TEXT, generator=seeded(0)))
        (output.images.abs().sum() + output.expected_error.sum()).backward()
        missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not missing

    @torch.no_grad()
    def test_save_and_load(self, name, tmp_path):
        network = build(name, predict_std=True, text_width=TEXT)
        network.save_pretrained(tmp_path)
        assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
        again = MULTI_CONTRAST[name].from_pretrained(tmp_path)
        operators, y, _ = measurements()
        embeds = torch.ones(2, 3, TEXT)
        first, second = network(operators, y, embeds), again(operators, y, embeds)
        assert all(torch.equal(first[key], second[key]) for key in ("images", "expected_error"))

    @torch.no_grad()
    def test_what_was_measured_stays_after_each_block(self, name):
        """A single coil: formula (4) puts the samples back, for the next block and at the end."""
        network = build(name)
        operators, y, _ = measurements(coils=1)
        inputs: list[torch.Tensor] = []
        for module in network.modules():
            if isinstance(module, RecurrentUNet):
                module.register_forward_pre_hook(lambda _, args: inputs.append(args[0][:, :2]))
        images = network(operators, y).images
        assert len(inputs) == 2 * len(operators)
        for c, operator in enumerate(operators):
            torch.testing.assert_close(operator(images[:, c]), y[:, c], rtol=1e-3, atol=1e-4)
            scale = intensity(operator.adjoint(y[:, c]))
            second = channels_to_complex(inputs[2 * c + 1]) * scale
            torch.testing.assert_close(operator(second), y[:, c], rtol=1e-3, atol=1e-4)
            assert not torch.allclose(second, operator.adjoint(y[:, c]), rtol=1e-2)

    @torch.no_grad()
    def test_silent_convolutions_do_no_harm(self, name):
        """Fully sampled and without noise, data consistency alone gives the images themselves."""
        network = build(name)
        silence(*(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)))
        operators, _, images = measurements()
        full = [CartesianSense(torch.ones_like(o.mask), o.coil_maps) for o in operators]
        y = torch.stack([o(images[:, c]) for c, o in enumerate(full)], dim=1)
        torch.testing.assert_close(network(full, y).images, images, rtol=1e-4, atol=1e-4)


class TestStates:
    """Information passed from contrast to contrast and from block to block."""

    @pytest.mark.parametrize("blocks", [1, 2])
    def test_information_flows_forwards_only(self, name, blocks):
        expected = LOWER if name in RECURRENT else DIAGONAL
        assert dependencies(build(name, blocks=blocks)) == expected

    @torch.no_grad()
    @pytest.mark.parametrize("name", RECURRENT)
    def test_first_contrasts_do_not_know_how_many_follow(self, name):
        network = build(name)
        operators, y, _ = measurements()
        images = network(operators, y).images
        fewer = network(operators[:2], y[:, :2]).images
        torch.testing.assert_close(fewer, images[:, :2], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", RECURRENT)
    def test_nothing_is_handed_over_but_through_the_states(self, name):
        network = build(name)
        silence(*(m for n, m in network.named_modules() if n.split(".")[-1] == "hand"))
        assert dependencies(network) == DIAGONAL

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_each_level_of_hru_net_alone_carries_information(self, level):
        network = build("hru_net")
        for unet in network.networks:
            silence(*unet.hand[:level], *unet.hand[level + 1 :])
        assert dependencies(network) == LOWER

    @torch.no_grad()
    @pytest.mark.parametrize(("name", "levels"), [("ru_net", 1), ("hru_net", 3)])
    def test_each_block_gets_the_states_of_the_block_before(self, name, levels):
        """Of the same contrast, and the first block those of the last one, a contrast earlier."""
        network = build(name)
        calls: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        for unet in network.networks:
            unet.register_forward_hook(lambda _, args, out: calls.append((args[2], out[1])))
        operators, y, _ = measurements(shape=(17, 22))
        network(operators, y)
        assert calls[0][0] == []
        for (_, before), (given, _) in pairwise(calls):
            assert given is before
        shapes = [(2, 16, 5, 6), (2, 8, 10, 12), (2, 4, 20, 24)][:levels]
        assert all([tuple(state.shape) for state in out] == shapes for _, out in calls)

    @torch.no_grad()
    def test_gru_unet_shows_every_block_the_image_before(self):
        network = build("gru_unet")
        seen: list[torch.Tensor] = []
        for block in network.networks:
            block.hand.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        operators, y, _ = measurements()
        images = network(operators, y).images
        assert not torch.stack(seen[:2]).any()
        for c in (1, 2):
            scale = intensity(operators[c - 1].adjoint(y[:, c - 1]))
            expected = complex_to_channels(images[:, c - 1] / scale)
            for given in seen[2 * c : 2 * c + 2]:
                torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("name", ["unet_s", "unet_i"])
    def test_without_states_the_order_is_nothing(self, name):
        """Individual networks go along with their contrasts."""
        network, other = build(name), build(name)
        order = [2, 0, 1]
        if name == "unet_i":
            for c, own in enumerate(order):
                other.networks[c].load_state_dict(network.networks[own].state_dict())
        operators, y, _ = measurements()
        images = network(operators, y).images[:, order]
        permuted = [operators[c] for c in order], y[:, order]
        torch.testing.assert_close(other(*permuted).images, images, rtol=1e-4, atol=1e-4)
        if name == "unet_i":
            assert not torch.allclose(network(*permuted).images, images, rtol=1e-2)

    @torch.no_grad()
    @pytest.mark.parametrize("changed", [0, 1])
    def test_prompts_reach_their_own_contrast_and_later_ones(self, name, changed):
        network = build(name, 2, text_width=TEXT)
        operators, y, _ = measurements(2)
        embeds = torch.randn(2, 2, TEXT, generator=seeded(1))
        another = embeds.clone()
        another[:, changed] *= -1
        one, other = (network(operators, y, e).images for e in (embeds, another))
        differ = [not torch.allclose(one[:, c], other[:, c], rtol=1e-3) for c in (0, 1)]
        assert differ == [changed == 0, changed == 1 or name in RECURRENT]


class TestRecurrentUNet:
    @torch.no_grad()
    def test_without_levels_that_hand_on_it_is_the_plain_unet(self):
        plain = UNet(2, 4, 2, TEXT)
        recurrent = RecurrentUNet(2, 4, 2, TEXT, handed=0)
        for value in plain.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=seeded(0)))
        recurrent.down.load_state_dict(plain.down[:2].state_dict())
        recurrent.merge[0].load_state_dict(plain.down[2].state_dict())
        for own, theirs in zip(recurrent.merge[1:], plain.merge, strict=True):
            own.load_state_dict(theirs.state_dict())
        recurrent.up.load_state_dict(plain.up.state_dict())
        recurrent.last.load_state_dict(plain.last.state_dict())
        x, embeds = torch.randn(2, 2, 13, 18), torch.randn(2, TEXT)
        found, states = recurrent(x, embeds, [])
        torch.testing.assert_close(found, plain(x, embeds), rtol=1e-5, atol=1e-5)
        assert states == []

    @torch.no_grad()
    def test_decoder_levels_are_the_papers(self):
        """d_n = block(up(d_{n−1}), s_n, conv(h_n)), which is also the next h_n."""
        unet = RecurrentUNet(2, 4, 1, None, handed=2)
        x = torch.randn(1, 2, 8, 12, generator=seeded(0))
        given = [torch.randn(1, 8, 4, 6), torch.randn(1, 4, 8, 12)]
        found, states = unet(x, None, given)
        s = unet.down[0](x, None)
        pooled = torch.nn.functional.avg_pool2d(s, 2)
        d_1 = unet.merge[0](torch.cat([pooled, unet.hand[0](given[0])], dim=1), None)
        d_2 = unet.merge[1](torch.cat([unet.up[0](d_1), s, unet.hand[1](given[1])], dim=1), None)
        for one, other in zip([found, *states], [unet.last(d_2), d_1, d_2], strict=True):
            torch.testing.assert_close(one, other)
        zeros = unet(x, None, [torch.zeros_like(state) for state in given])[0]
        torch.testing.assert_close(unet(x, None, [])[0], zeros)


class TestMaskWeights:
    """Gradients with respect to what stands in for the masks."""

    def problem(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks as weights, coil maps and full k-space, the contrasts along the first axis."""
        operators, _, images = measurements(2)
        masks = torch.stack([operator.mask for operator in operators])
        maps = torch.stack([present(operator.coil_maps) for operator in operators]).to(dtype)
        return masks.to(maps.real.dtype), maps, fft2c(maps * images.movedim(1, 0)[:, :, None])

    def test_they_go_through_the_zero_filled_image_and_data_consistency(self):
        """Against finite differences, without the U-Nets."""
        masks, maps, y = self.problem(torch.complex128)
        network = build("hru_net", blocks=1)
        silence(*(unet.last for unet in network.networks))

        def loss(weights: torch.Tensor) -> torch.Tensor:
            operators = [DoubleSense(w, m) for w, m in zip(weights, maps, strict=True)]
            return network(operators, (weights * y).movedim(0, 1)).images.abs().square().sum()

        direction = torch.randn(masks.shape, generator=seeded(0)).double()
        weights = masks.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(weights), weights)
        with torch.no_grad():
            slope = (loss(masks + 1e-5 * direction) - loss(masks - 1e-5 * direction)) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)

    def test_a_later_contrast_moves_an_earlier_mask(self, name):
        masks, maps, y = self.problem(torch.complex64)
        weights = masks.clone().requires_grad_()
        operators = [WeightedSense(w, m) for w, m in zip(weights, maps, strict=True)]
        images = build(name, 2)(operators, (weights * y).movedim(0, 1)).images
        images[:, 1].abs().sum().backward()
        outside = masks == 0  # also where nothing was sampled
        reached = [bool(present(weights.grad)[c][outside[c]].any()) for c in (0, 1)]
        assert reached == [name in RECURRENT, True]


def learned(name: str, steps: int = 40) -> tuple[float, float]:
    """Squared error of the second contrast, before and after training, on slices never seen.

    Both contrasts show one random pattern, the second with the opposite sign of brightness; of
    the second only 3 lines of 16 are measured.
    """
    source = seeded(0)
    frequency = (torch.arange(16) - 8).abs().expand(1, 1, 16, 16)
    operators = [CartesianSense(frequency <= highest) for highest in (8, 1)]
    torch.manual_seed(0)
    network = KINDS[name](width=8, depth=1, blocks=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    def error(batch: int) -> torch.Tensor:
        pattern = torch.kron(torch.rand(batch, 4, 4, generator=source), torch.ones(1, 4, 4))
        images = torch.stack([pattern, 1 - pattern], dim=1).to(torch.complex64)
        y = torch.stack([o(images[:, c]) for c, o in enumerate(operators)], dim=1)
        return (network(operators, y).images - images)[:, 1].abs().square().mean()

    with torch.no_grad():
        before = float(error(32))
    for _ in range(steps):
        optimizer.zero_grad()
        error(8).backward()
        optimizer.step()
    return before, float(error(32).detach())


def test_the_first_contrast_teaches_the_second():
    """All recurrent networks read the pattern there; alone it cannot be known."""
    _, alone = learned("unet_s")
    for name in RECURRENT:
        before, after = learned(name)
        assert after < min(before, alone) / 8


@pytest.mark.parametrize(
    ("text_width", "change", "sentence"),
    [
        (None, lambda o, y: (o[0], y), "a list"),
        (None, lambda o, y: ([], y), "a sequence of operators"),
        (None, lambda o, y: (o[:2], y), r"\(batch, 2, coils, ny, nx\) for 2 .* got \(2, 3, 3, 24"),
        (None, lambda o, y: (o[:2], y[:, 0]), r"got \(2, 3, 24, 20\)"),
        (None, lambda o, y: (o, y[..., :-1]), "expected k-space of shape"),
        (None, lambda o, y: (o, y.to(torch.complex128)), "complex64"),
        (None, lambda o, y: (o, y, torch.zeros(2, 3, TEXT)), "reads no prompt: leave"),
        (TEXT, lambda o, y: (o, y), r"\(2, 3, 5\), got none"),
        (TEXT, lambda o, y: (o, y, torch.zeros(2, TEXT)), r"got \(2, 5\)"),
    ],
)
def test_calls_that_do_not_fit(text_width, change, sentence):
    operators, y, _ = measurements()
    with pytest.raises(InputError, match=sentence):
        build("hru_net", text_width=text_width)(*change(operators, y))


def test_individual_unets_have_their_number():
    operators, y, _ = measurements(2)
    with pytest.raises(InputError, match=r"expected the 3 contrasts .* got 2"):
        build("unet_i")(operators, y)
    with pytest.raises(InputError, match="contrasts"):
        build("unet_i", contrasts=0)


@pytest.mark.parametrize("options", [{"width": 0}, {"depth": 0}, {"blocks": 1.5}])
def test_sizes_that_make_no_network(name, options):
    with pytest.raises(InputError, match="a whole number of 1 or more"):
        build(name, **options)
