from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.operators import Crop, sense_operator
from ctxrecon.pipelines import ContextMRIPipeline, load_prior
from ctxrecon.training.adapt import Adaptation, adapt_prior, objective, run
from ctxrecon.training.adapt.objective import Example, Levels, Turn
from ctxrecon.training.adapt.slices import divide, hide, slices_of
from ctxrecon.training.adapt.write import save_adapted, summary

SHAPE = (24, 48)


def toy_image(number: int) -> Tensor:
    """Stripes of one kind with another phase and place in each, ``(1, ny, nx)``."""
    generator = torch.Generator().manual_seed(number)
    shift, width = torch.rand(2, generator=generator).tolist()
    y = torch.linspace(-1, 1, SHAPE[0])[:, None]
    x = torch.linspace(-1, 1, SHAPE[1])[None]
    inside = (y.square() + x.square() < 0.5 + 0.3 * width).float()
    return (inside * (1 + 0.5 * torch.cos(9 * (x + shift)))).to(torch.complex64)[None]


def toy_scan(number: int, *, slices: int = 1, acceleration: float | None = None) -> Measurement:
    generator = torch.Generator().manual_seed(1000 + number)
    images = torch.cat([toy_image(100 * number + index) for index in range(slices)])
    kspace = fft2c(images)[:, None]
    kspace = kspace + 0.01 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    mask = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    if acceleration is not None:
        mask = uniform1d(SHAPE, acceleration, 0.25, generator=generator)
    return Measurement.from_arrays(kspace * mask, mask, noise_std=0.01)


@pytest.fixture(scope="module")
def adaptation(pipe: ContextMRIPipeline) -> Adaptation:
    """Of two scans, after a few steps; not to be changed."""
    return adapt_prior(pipe, [toy_scan(n) for n in range(2)], "Knee, PDFS", steps=2)


def weights(pipe: ContextMRIPipeline) -> Tensor:
    return torch.cat([value.flatten() for value in pipe.unet.parameters()])


@pytest.mark.parametrize("acceleration", [None, 2.0])
def test_predicts_hidden_samples_better(
    pipe: ContextMRIPipeline, acceleration: float | None
) -> None:
    scans = [toy_scan(number, acceleration=acceleration) for number in range(5)]
    before = weights(pipe).clone()
    found = adapt_prior(pipe, scans, "Knee", steps=15, learning_rate=1e-2)
    assert found.adapted
    assert found.scores.gain > 0.2
    assert found.held_out == "1 of 5 scans"
    assert found.fully_sampled == (4 if acceleration is None else 0)
    assert bool((weights(pipe) == before).all())
    assert not bool((weights(found.pipe) == before).all())


def test_keeps_the_prior_that_is_no_worse(pipe: ContextMRIPipeline) -> None:
    scans = [toy_scan(number) for number in range(2)]
    # A step so large that nothing is left of the network.
    found = adapt_prior(pipe, scans, steps=2, learning_rate=30.0)
    assert not found.adapted
    assert found.share == 0
    assert found.scores.gain <= 0
    assert bool((weights(found.pipe) == weights(pipe)).all())
    assert "original prior is kept" in summary(found, "the prior")


def test_reports_the_slices_that_were_used(
    pipe: ContextMRIPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()
    split = run._split

    def counted(*args: Any) -> Example:
        used.add(id(args[1]))
        return split(*args)

    monkeypatch.setattr(run, "_split", counted)
    monkeypatch.setattr(run, "_MOST_SPLITS", 3)
    scans = [toy_scan(number, slices=2, acceleration=2.0) for number in range(3)]
    found = adapt_prior(pipe, scans, steps=1)
    assert (found.slices, found.fully_sampled) == (len(used), 0) == (3, 0)
    assert "3 undersampled slices" in summary(found, "the prior")
    used.clear()
    found = adapt_prior(pipe, [scans[0], toy_scan(3, slices=2), scans[1]], steps=1, seed=1)
    assert found.slices == found.fully_sampled + len(used)


def test_same_seed_same_weights(pipe: ContextMRIPipeline) -> None:
    scans = [toy_scan(0, slices=2), toy_scan(1, acceleration=2.0)]
    one, two = (adapt_prior(pipe, scans, steps=3, seed=5) for _ in range(2))
    assert bool((weights(one.pipe) == weights(two.pipe)).all())
    assert one.scores == two.scores


def test_held_out_scans_slices_and_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    several = divide(slices_of([toy_scan(n, slices=2) for n in range(5)], [None] * 5), generator)
    assert (len(several.training), len(several.trials)) == (8, 2)
    single = divide(slices_of([toy_scan(0, slices=4)], [None]), generator)
    assert (len(single.training), single.held_out) == (3, "1 of 4 slices")
    assert several.unseen
    assert single.unseen
    one = divide(slices_of([toy_scan(0)], [None]), generator)
    assert len(one.training) == 1
    assert not one.unseen
    for trial in one.trials:
        assert not bool((trial.hidden & one.training[0].mask).any())
        assert not bool((trial.hidden & trial.slice.mask).any())


def test_noise_in_the_units_of_normalized_maps() -> None:
    kspace = fft2c(toy_image(0))[:, None].expand(-1, 2, -1, -1)
    maps = torch.full((1, 2, *SHAPE), 1.0, dtype=torch.complex64)
    scan = Measurement.from_arrays(kspace, torch.ones(SHAPE).bool(), maps, noise_std=0.2)
    [item] = slices_of([scan], [None])
    assert item.measurement.noise_std is not None
    assert float(item.measurement.noise_std) == pytest.approx(0.2 / 2**0.5)


def test_hidden_samples_are_not_reconstructed_from(pipe: ContextMRIPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    scan = toy_scan(3, acceleration=2.0)
    division = divide(slices_of([scan, toy_scan(4, acceleration=2.0)], [None] * 2), generator)
    item = division.training[0]
    states = pipe.encode_prompt([""]).detach()
    example = run._split(pipe, item, states, torch.Generator().manual_seed(1), 0)
    assert example.operator is not None
    hidden = hide(item.mask, run._HIDDEN_SHARE, torch.Generator().manual_seed(1))
    y = item.measurement.y
    changed = replace(item.measurement, y=torch.where(hidden, 5 * y, y))
    other = run._split(
        pipe,
        replace(item, measurement=changed),
        states,
        torch.Generator().manual_seed(1),
        0,
    )
    assert torch.equal(example.image, other.image)
    assert example.hidden is not None
    assert other.hidden is not None
    assert not torch.equal(example.hidden, other.hidden)


@pytest.mark.parametrize("lines", [True, False])
def test_hide_leaves_the_calibration_region(lines: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = uniform1d((48, 64), 2.0, 0.25, generator=generator)
    if not lines:
        mask = torch.rand(1, 1, 48, 64, generator=generator) < 0.4
        mask[..., 16:32, 24:40] = True
    hidden = hide(mask, 0.25, generator)
    assert not bool((hidden & ~mask).any())
    assert not bool(hidden[..., 20:28, 28:36].any())
    columns = hidden[0, 0].any(dim=0), hidden[0, 0].all(dim=0)
    assert torch.equal(*columns) == lines


def test_lines_are_hidden_along_either_axis() -> None:
    mask = uniform1d((48, 64), 2.0, 0.25, generator=torch.Generator().manual_seed(0))
    hidden = hide(mask, 0.25, torch.Generator().manual_seed(1))
    turned = hide(mask.mT, 0.25, torch.Generator().manual_seed(1))
    assert torch.equal(turned, hidden.mT)


def test_too_few_outer_samples() -> None:
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 12:20] = True
    with pytest.raises(InputError, match="calibration"):
        hide(mask, 0.25, torch.Generator().manual_seed(0))


class Gaussian(torch.nn.Module):
    """The network whose ``x̂_0`` is that of ``N(0, variance)`` in each part, times ``factor``."""

    def __init__(self, levels: Levels, variance: float, factor: float) -> None:
        super().__init__()
        self.levels, self.variance = levels, variance
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.dtype = torch.float32

    def forward(self, x_t: Tensor, t: Tensor, *_: Tensor, return_dict: bool) -> tuple[Tensor]:
        alpha_bar = self.levels.alphas_cumprod[t].view(-1, 1, 1, 1)
        level = (1 - alpha_bar) / alpha_bar
        clean = self.factor * x_t / alpha_bar.sqrt() * self.variance / (self.variance + level)
        return ((alpha_bar.sqrt() * x_t - clean) / (1 - alpha_bar).sqrt(),)


def test_noisy_images_teach_the_clean_posterior_mean() -> None:
    levels = Levels(torch.linspace(0.9999, 0.01, 100), "v_prediction")
    generator = torch.Generator().manual_seed(0)
    noise, variance = 0.5, 1.0
    part = torch.randn(400, 2, 32, 32, generator=generator)
    dirty = part + noise * torch.randn(part.shape, generator=generator)
    states = torch.zeros(1, 1, 1)
    examples = [Example(torch.complex(*each)[None], noise, states) for each in dirty]
    network = Gaussian(levels, variance, 1.0)
    objective.loss(
        network,
        levels,
        Crop((1, 32, 32), (32, 32)),
        examples,
        [Turn(False, 0.0)] * len(examples),
        generator,
    ).backward()
    plain = Gaussian(levels, variance, 1.0)
    objective.loss(
        plain,
        levels,
        Crop((1, 32, 32), (32, 32)),
        [Example(item.image, 0.0, states) for item in examples],
        [Turn(False, 0.0)] * len(examples),
        generator,
    ).backward()
    assert network.factor.grad is not None
    assert plain.factor.grad is not None
    assert abs(float(network.factor.grad)) < 0.02 * abs(float(plain.factor.grad))


def test_hidden_samples_teach_the_image() -> None:
    levels = Levels(torch.linspace(0.9999, 0.01, 100), "v_prediction")
    generator = torch.Generator().manual_seed(0)
    wanted = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    wanted[..., ::2] = True
    operator = sense_operator(wanted, None)
    image = toy_image(0)
    hidden = operator(image)
    turn = Turn(True, 1.0)
    assert torch.allclose(turn.back(turn.there(image)), image, atol=1e-6)

    class Answer(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x_t: Tensor, t: Tensor, *_: Tensor, return_dict: bool) -> tuple[Tensor]:
            alpha_bar = levels.alphas_cumprod[t].view(-1, 1, 1, 1)
            clean = torch.view_as_real(turn.there(image)).movedim(-1, -3)
            return ((alpha_bar.sqrt() * x_t - clean) / (1 - alpha_bar).sqrt(),)

    example = Example(
        0 * image, 0.0, torch.zeros(1, 1, 1), False, operator, hidden, int(wanted.sum())
    )
    found = objective.loss(Answer(), levels, Crop((1, *SHAPE), SHAPE), [example], [turn], generator)
    assert float(found) < 1e-6


def test_timesteps_above_the_noise() -> None:
    levels = Levels(torch.linspace(0.9999, 0.01, 100), "v_prediction")
    generator = torch.Generator().manual_seed(0)
    sigma = ((1 - levels.alphas_cumprod) / levels.alphas_cumprod).sqrt()
    drawn = [levels.draw(0.3, generator) for _ in range(200)]
    assert float(sigma[min(drawn)]) > 0.3
    assert max(drawn) > 80


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"minutes": 0.0}, "minutes"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"prompts": ["a", "b"]}, "prompts"),
        ({"prompts": [["a", "b"]]}, "prompt"),
    ],
)
def test_options_refused(pipe: ContextMRIPipeline, options: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        adapt_prior(pipe, [toy_scan(0)], **options)


def test_no_scans_and_empty_scans(pipe: ContextMRIPipeline) -> None:
    with pytest.raises(InputError, match="at least one scan"):
        adapt_prior(pipe, [])
    empty = Measurement.from_arrays(
        torch.zeros(1, 1, *SHAPE, dtype=torch.complex64), torch.ones(SHAPE, dtype=torch.bool)
    )
    with pytest.raises(InputError, match="empty"):
        adapt_prior(pipe, [empty])


def test_loss_that_is_not_finite(pipe: ContextMRIPipeline) -> None:
    broken = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        next(iter(broken.parameters())).mul_(1e30)
    other = ContextMRIPipeline(**{**pipe.components, "unet": broken})
    other.set_progress_bar_config(disable=True)
    with pytest.raises(InputError):
        adapt_prior(other, [toy_scan(0), toy_scan(1)], steps=1)


def test_minutes_end_the_training(pipe: ContextMRIPipeline) -> None:
    found = adapt_prior(pipe, [toy_scan(0), toy_scan(1)], minutes=0.01)
    assert found.steps >= 1


def test_saved_prior_loads_and_tells_counts(adaptation: Adaptation, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    save_adapted(adaptation, folder, base="the phantom prior")
    loaded = load_prior(folder)
    assert torch.allclose(weights(loaded), weights(adaptation.pipe), atol=1e-3)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "2 scans" in card
    assert "PDFS" not in card
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_scores_of_the_training_slice_are_named_as_such(adaptation: Adaptation) -> None:
    better = replace(adaptation, adapted=True, share=1.0)
    assert "only slice" not in summary(better, "the prior")
    alone = summary(replace(better, unseen=False), "the prior")
    assert "do not show how good the prior is on other scans" in alone


def test_interrupted_writing_leaves_nothing(
    adaptation: Adaptation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContextMRIPipeline, "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        save_adapted(adaptation, tmp_path / "mine", base="the phantom prior")
    assert list(tmp_path.iterdir()) == []
