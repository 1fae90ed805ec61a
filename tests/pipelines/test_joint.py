"""Samplers with reconstructors: pipeline call, gradients in training, checkpoints."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import present
from networks import small_network

import ctxrecon
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned import (
    LOUPE,
    FixedMasks,
    GreedyPolicy,
    PatternGenerator,
    PerContrastSampler,
    SequentialSampler,
)
from ctxrecon.operators import CartesianSense
from ctxrecon.phantom import ECHO_TIMES
from ctxrecon.pipelines import JointPipeline, load_joint
from ctxrecon.reconstructors import (
    MULTI_CONTRAST,
    RECONSTRUCTORS,
    MoDL,
    UnrolledGenerator,
    reconstruct_contrasts,
)
from ctxrecon.tasks import T2StarMLP
from ctxrecon.training.masks import GreedyTraining, JointObjective, JointTraining, image_loss
from ctxrecon.training.trained import with_weights

SHAPE = (24, 24)
NAMES = [*RECONSTRUCTORS, *MULTI_CONTRAST]


def network(name: str, contrasts: int = 2, **options: Any) -> Any:
    """A small network without layers initialized to zero."""
    sizes: dict[str, Any] = {"width": 4, **options}
    if name in ("unet", "varnet", *MULTI_CONTRAST):
        sizes["depth"] = 2
    return small_network(name, contrasts, **sizes)


def scan(contrasts: int = 2, coils: int = 3, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Fully sampled k-space of smooth images, and coil maps."""
    source = seeded(5)
    y = complex_noise((batch, contrasts, *SHAPE), source)
    maps = simulate_coil_maps(coils, SHAPE, generator=source)
    return fft2c(maps[:, None] * y[:, :, None]), maps


def batch_of(contrasts: int = 2) -> dict[str, torch.Tensor]:
    kspace, maps = scan(contrasts)
    operator = CartesianSense(torch.ones(1, 1, *SHAPE, dtype=torch.bool), maps)
    target = [operator.adjoint(kspace[:, c]) for c in range(contrasts)]
    return {
        "kspace": kspace,
        "coil_maps": maps.expand(2, -1, -1, -1),
        "target": torch.stack(target, dim=1),
        "seed": torch.tensor([3, 4]),
        "step": torch.tensor([0, 0]),
    }


def joint(name: str = "hru_net", sampler: Any = None, **options: Any) -> JointPipeline:
    torch.manual_seed(1)
    sampler = sampler or PerContrastSampler(SHAPE, 2, 3.0, center_fraction=0.25)
    pipeline = JointPipeline(network(name), sampler, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class TestPipeline:
    """The call that chooses masks or takes them."""

    @pytest.mark.parametrize("name", ["hru_net", "modl"])
    def test_what_the_sampler_takes_is_what_is_reconstructed(self, name):
        pipe = joint(name)
        kspace, maps = scan()
        output = pipe(kspace, coil_maps=maps, generator=seeded(0))
        assert torch.equal(output.masks, pipe.sampler(batch_size=2, generator=seeded(0)))
        again = pipe(kspace * output.masks, output.masks, coil_maps=maps)
        torch.testing.assert_close(again.images, output.images)
        operators = [CartesianSense(output.masks[:, c], maps) for c in range(2)]
        with torch.no_grad():
            direct = reconstruct_contrasts(pipe.reconstructor, operators, kspace * output.masks)
        torch.testing.assert_close(output.images, direct.images)
        for c, operator in enumerate(operators):
            y = (kspace * output.masks)[:, c]
            error = (operator(output.images[:, c]) - y).flatten(1).norm(dim=1)
            expected = error / y.flatten(1).norm(dim=1)
            torch.testing.assert_close(present(output.residual)[:, c], expected)

    @pytest.mark.parametrize("name", ["hru_net", "modl"])
    def test_slices_reconstructed_in_turn_are_those_of_one_batch(self, name, monkeypatch):
        pipe = joint(name)
        kspace, maps = scan(batch=3)
        at_once = pipe(kspace, coil_maps=maps, generator=seeded(0))
        monkeypatch.setattr("ctxrecon.pipelines.joint.images_at_once", lambda *_: 1)
        in_turn = pipe(kspace, coil_maps=maps, generator=seeded(0))
        torch.testing.assert_close(in_turn.images, at_once.images)
        assert torch.equal(in_turn.masks, at_once.masks)

    def test_one_slice_needs_no_batch(self):
        pipe = joint()
        kspace, maps = scan(batch=1)
        generator = [seeded(0)]
        one = pipe(kspace[0].numpy(), coil_maps=maps.numpy(), generator=generator)
        assert one.images.shape == (1, 2, *SHAPE)
        given = pipe(kspace[0], one.masks[0].numpy(), coil_maps=maps)
        torch.testing.assert_close(given.images, one.images)

    def test_maps_come_from_the_contrast_with_the_most_signal(self):
        """A contrast without signal does not affect the coil maps."""
        pipe = joint()
        kspace, _ = scan()
        kspace[:, 0] *= 1e-3
        noise = complex_noise(tuple(kspace[:, 0].shape), seeded(1))
        mixed = kspace.clone()
        mixed[:, 0] = 1e-3 * noise
        first, second = (present(pipe(y, generator=seeded(0)).coil_maps) for y in (kspace, mixed))
        assert torch.equal(first, second)

    def test_a_sampler_of_one_mask_serves_all_contrasts(self):
        pipe = joint(sampler=LOUPE(SHAPE, 3.0, center_fraction=0.25))
        masks = pipe(scan()[0], generator=seeded(0)).masks
        assert masks.shape == (2, 2, 1, *SHAPE)
        assert torch.equal(masks[:, 0], masks[:, 1])

    def test_samplers_that_look(self):
        for sampler in (
            SequentialSampler(SHAPE, 3.0, 2, center_fraction=0.25, width=4),
            GreedyPolicy(SHAPE, 3.0, center_fraction=0.25, width=4),
        ):
            pipe = joint("unrolled", sampler)
            kspace, maps = scan(contrasts=1)
            output = pipe(kspace, coil_maps=maps, generator=seeded(0))
            assert output.masks[0, 0, 0, 0].sum() == 8
            with pytest.raises(InputError, match="one image"):
                pipe(scan()[0], coil_maps=maps)

    @pytest.mark.parametrize("kind", ["sequential", "greedy"])
    def test_stages_are_lower_ratios(self, kind):
        """Each stage equals its mask passed explicitly and contains the stage before."""
        sampler = {
            "sequential": SequentialSampler(SHAPE, 2.0, 2, center_fraction=0.25, width=4),
            "greedy": GreedyPolicy(SHAPE, 3.0, center_fraction=0.25, width=4),
        }[kind]
        pipe = joint("unrolled", sampler)
        kspace, maps = scan(contrasts=1)
        output = pipe(kspace, coil_maps=maps, generator=seeded(0), stages=True)
        plain = pipe(kspace, coil_maps=maps, generator=seeded(0))
        assert plain.stages is None
        assert torch.equal(plain.images, output.images)
        assert torch.equal(plain.masks, output.masks)
        stages = [*present(output.stages), output]
        lines = [int(stage.masks[0, 0, 0, 0].sum()) for stage in stages]
        assert lines == ([6, 9, 12] if kind == "sequential" else [6, 7, 8])
        for before, stage in pairwise(stages):
            assert bool((stage.masks >= before.masks).all())
        for stage in stages:
            given = pipe(kspace * stage.masks, stage.masks, coil_maps=maps)
            torch.testing.assert_close(given.images, stage.images)
            torch.testing.assert_close(present(given.residual), present(stage.residual))
        with pytest.raises(InputError, match="leave stages out"):
            pipe(kspace * output.masks, output.masks, coil_maps=maps, stages=True)
        with pytest.raises(InputError, match="leave stages out"):
            joint()(scan()[0], coil_maps=maps, stages=True)

    def test_maps_of_the_tissue(self):
        relaxometer = T2StarMLP(list(ECHO_TIMES))
        torch.manual_seed(1)
        sampler = PerContrastSampler(SHAPE, 5, 2.0, center_fraction=0.25)
        pipe = JointPipeline(network("unet_s"), sampler, relaxometer)
        output = pipe(scan(contrasts=5)[0], generator=seeded(0))
        assert torch.equal(present(output.t2star), relaxometer(output.images))

    def test_prompts(self, pipe):
        width = pipe.text_encoder.config.hidden_size
        made = network("hru_net", text_width=width)
        reading = JointPipeline(
            made,
            PerContrastSampler(SHAPE, 2, 3.0, center_fraction=0.25),
            None,
            pipe.text_encoder,
            pipe.tokenizer,
        )
        kspace, maps = scan()
        plain = reading(kspace, prompt=None, generator=seeded(0), coil_maps=maps)
        assert plain.prompts == [["", ""]] * 2
        each = reading(
            kspace, prompt=["Knee, PD", "Knee, PDFS"], generator=seeded(0), coil_maps=maps
        )
        assert each.prompts == [["Knee, PD", "Knee, PDFS"]] * 2
        assert not torch.equal(each.images, plain.images)
        with pytest.raises(InputError, match="2 contrasts"):
            reading(kspace, prompt=["Knee"] * 3, coil_maps=maps)
        with pytest.raises(InputError, match="it was trained with"):
            JointPipeline(made, FixedMasks(SHAPE, 3.0))

    def test_malformed_calls(self):
        pipe = joint()
        kspace, maps = scan()
        half = pipe(kspace, coil_maps=maps, generator=seeded(0)).masks
        refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("only 33 % of a contrast", (kspace * half,), {}),
            ("either acceleration or a mask", (kspace, half), {"acceleration": 4.0}),
            ("expected k-space", (kspace[0, 0],), {}),
            ("does not fit k-space", (kspace, half[..., :5]), {}),
            ("samples nothing", (kspace, torch.zeros_like(half)), {}),
            ("2 contrasts.* 3", (scan(3)[0],), {}),
            ("complex", (kspace.abs(),), {}),
        ]
        for sentence, arguments, options in refused:
            with pytest.raises(InputError, match=sentence):
                pipe(*arguments, coil_maps=maps, **options)
        with pytest.raises(InputError, match="the sampler's matrix"):
            pipe(kspace[..., :20])

    def test_what_was_never_measured_is_not_sampled(self):
        """The empty rest of a partial Fourier scan."""
        pipe = joint()
        kspace, maps = scan()
        kspace[..., :2] = 0
        masks = pipe(kspace, coil_maps=maps, generator=seeded(0)).masks
        assert not masks[..., :2].any()


class TestCheckpoint:
    """Save and load."""

    def test_round_trip(self, tmp_path):
        torch.manual_seed(1)
        sampler = PerContrastSampler(SHAPE, 5, 2.0, learn_split=True, center_fraction=0.25)
        relaxometer = T2StarMLP(list(ECHO_TIMES))
        pipe = JointPipeline(network("hru_net"), sampler, relaxometer)
        pipe.save_pretrained(tmp_path / "joint")
        kspace, maps = scan(contrasts=5)
        expected = pipe(kspace, coil_maps=maps, generator=seeded(0))
        for load in (load_joint, ctxrecon.load, JointPipeline.from_pretrained):
            again = load(tmp_path / "joint")
            assert isinstance(again, JointPipeline)
            found = again(kspace, coil_maps=maps, generator=seeded(0))
            assert torch.equal(found.images, expected.images)
            assert torch.equal(present(found.t2star), present(expected.t2star))

    def test_an_unknown_sampler_is_refused(self, tmp_path):
        joint().save_pretrained(tmp_path / "joint")
        path = tmp_path / "joint" / "sampler" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "_class_name": "Exploit"}))
        with pytest.raises(InputError, match="'Exploit'"):
            load_joint(tmp_path / "joint")


class TestTraining:
    """The loss of a sampler and a reconstructor."""

    @pytest.mark.parametrize("name", NAMES)
    def test_every_reconstructor_teaches_the_sampler(self, name):
        model = JointTraining(joint(name), JointObjective())
        model(batch_of()).sum().backward()
        gradient = model.sampler.weights.grad
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().sum()) > 0

    @pytest.mark.parametrize(
        "sampler",
        [
            LOUPE(SHAPE, 3.0, lines=False, center_fraction=0.25),
            PatternGenerator(SHAPE, (0.3, 0.5), center_fraction=0.25),
            SequentialSampler(SHAPE, 3.0, 2, center_fraction=0.25, width=4),
        ],
        ids=["loupe", "generator", "sequential"],
    )
    def test_every_sampler_learns(self, sampler):
        model = JointTraining(joint("unrolled", sampler), JointObjective())
        model(batch_of(contrasts=1)).sum().backward()
        for name, value in sampler.named_parameters():
            assert value.grad is not None, name
            assert bool(torch.isfinite(value.grad).all()), name

    def test_the_task_drives_masks_and_their_shares(self):
        torch.manual_seed(1)
        sampler = PerContrastSampler(SHAPE, 5, 2.0, learn_split=True, center_fraction=0.25)
        relaxometer = T2StarMLP(list(ECHO_TIMES))
        pipe = JointPipeline(network("unet_s"), sampler, relaxometer)
        images = complex_noise((2, 1, *SHAPE), seeded(1)).abs()
        decay = torch.exp(-torch.tensor(ECHO_TIMES) / 40)[None, :, None, None]
        batch = batch_of(contrasts=5)
        batch["target"] = (images * decay).to(torch.complex64)
        batch["kspace"] = fft2c(batch["coil_maps"][:, None] * batch["target"][:, :, None])
        model = JointTraining(pipe, JointObjective(aim="task"))
        model(batch).sum().backward()
        assert float(sampler.split.grad.abs().sum()) > 0
        assert not any(value.requires_grad for value in relaxometer.parameters())

    def test_contrasts_count_equally(self):
        """A dark contrast's relative error weighs as much as a bright one's."""
        batch = batch_of()
        error = torch.zeros_like(batch["target"])
        error[:, 0] = 0.1 * batch["target"][:, 0]
        from ctxrecon.reconstructors import MultiContrastOutput

        first = image_loss("l1", MultiContrastOutput(batch["target"] + error), batch)
        dark = {**batch, "target": batch["target"] * torch.tensor([1e-3, 1.0])[:, None, None]}
        error = error * 1e-3
        second = image_loss("l1", MultiContrastOutput(dark["target"] + error), dark)
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)

    def test_masks_follow_from_the_seeds_of_the_samples(self):
        model = JointTraining(joint(), JointObjective())
        batch = batch_of()
        both = model._weights(batch, None)
        turned = {name: value.flip(0) for name, value in batch.items()}
        assert torch.equal(both.flip(0), model._weights(turned, None))

    @pytest.mark.parametrize(
        "sampler",
        [
            PatternGenerator(SHAPE, (0.2, 0.8), center_fraction=0.1),
            FixedMasks(SHAPE, mask="uniform2d", center_fraction=0.1, ratios=(0.2, 0.8)),
        ],
        ids=["generator", "fixed"],
    )
    def test_each_sample_has_a_ratio_of_its_own(self, sampler):
        """Which follows from its seed, however samples are dealt to batches and processes."""
        model = JointTraining(joint("unrolled", sampler), JointObjective())
        batch = batch_of(contrasts=1)
        both = model._weights(batch, None).detach()
        first, second = both.flatten(1).mean(dim=1).tolist()
        assert abs(first - second) > 0.05
        for n in range(2):
            alone = {name: value[n : n + 1] for name, value in batch.items()}
            assert torch.equal(model._weights(alone, None), both[n : n + 1])

    def test_export_holds_what_was_trained(self):
        pipe = joint()
        model = JointTraining(pipe, JointObjective())
        weights = {name: value + 1 for name, value in model.state_dict().items()}
        copied = with_weights(pipe, weights)
        torch.testing.assert_close(copied.sampler.weights, pipe.sampler.weights + 1)
        assert not copied.reconstructor.training
        assert torch.equal(with_weights(pipe, {}).sampler.weights, pipe.sampler.weights)

    def test_objectives_that_cannot_be_served(self):
        greedy = GreedyPolicy(SHAPE, 3.0, center_fraction=0.25, width=4)
        refused = [
            ("task is a T2", joint(), JointObjective(aim="both")),
            ("task is a T2", joint(relaxometer=T2StarMLP([1.0, 2.0])), JointObjective()),
            ("--predict_std together", joint(), JointObjective(loss="gaussian")),
            ("expected `aim`", joint(), JointObjective(aim="speed")),
            ("positive `task_weight`", joint(), JointObjective(task_weight=0.0)),
            ("use GreedyTraining", joint("unrolled", greedy), JointObjective()),
        ]
        for sentence, pipe, objective in refused:
            with pytest.raises(InputError, match=sentence):
                JointTraining(pipe, objective)
        with pytest.raises(InputError, match="expected a greedy policy"):
            GreedyTraining(joint())


def test_a_greedy_policy_learns_which_line_gains():
    """A line that alone holds signal beyond the centre is soon preferred."""
    policy = GreedyPolicy((16, 16), 4.0, center_fraction=0.125, width=4)
    pipe = JointPipeline(UnrolledGenerator(width=4, iterations=1, blocks=1), policy)
    kspace = 1e-3 * complex_noise((2, 1, 1, 16, 16), seeded(0))
    kspace[..., 8, 8], kspace[..., 8, 2] = 8.0, 8.0
    maps = torch.ones(2, 1, 16, 16, dtype=torch.complex64)
    target = CartesianSense(torch.ones(1, 1, 16, 16, dtype=torch.bool)).adjoint(kspace[:, 0])
    batch = {
        "kspace": kspace,
        "coil_maps": maps,
        "target": target[:, None],
        "seed": torch.tensor([1, 2]),
        "step": torch.tensor([0, 0]),
    }
    model = GreedyTraining(pipe, samples=8)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for step in range(40):
        batch["seed"], batch["step"] = torch.tensor([step, 0]), torch.tensor([step, step])
        optimizer.zero_grad()
        model(batch).mean().backward()
        optimizer.step()
    masks = pipe(kspace, coil_maps=maps).masks
    assert bool(masks[..., 2].all())


def test_a_batch_of_contrasts_is_what_each_gives():
    """For a network of one contrast."""
    made: MoDL = network("modl")
    kspace, maps = scan()
    masks = FixedMasks(SHAPE, 3.0, center_fraction=0.25)(batch_size=2, generator=seeded(0))
    operator = CartesianSense(masks, maps)
    y = kspace * masks[:, None]
    with torch.no_grad():
        together = reconstruct_contrasts(made, [operator, operator], y).images
        for c in range(2):
            torch.testing.assert_close(together[:, c], made(operator, y[:, c]).images)
