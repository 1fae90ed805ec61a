"""The training loss, its weights, timesteps and prompts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_prompt
from ctxrecon.phantom.protocols import draw_protocol, vary_times
from ctxrecon.priors.factory import build_scheduler
from ctxrecon.training import drop_metadata, shuffle_parts, vary_metadata, without
from ctxrecon.training.prior import denoising_loss, loss_weights, spread_timestep

COMPLETE = ScanMetadata(
    anatomy="knee",
    slice=3,
    contrast="PD",
    pathologies=("Meniscus Tear", "Meniscus Tear", "Bone- Subchondral edema"),
    sequence="TurboSpinEcho",
    tr=3000,
    te=30,
    field_strength=1.5,
)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_network_has_no_loss(prediction_type: str, generator: torch.Generator) -> None:
    alphas = build_scheduler().alphas_cumprod
    images = torch.randn(3, 2, 8, 8, generator=generator)
    noise = torch.randn(3, 2, 8, 8, generator=generator)
    timesteps = torch.tensor([10, 400, 900])
    alpha_bar = alphas[timesteps].view(-1, 1, 1, 1)

    def oracle(noisy, t, states):
        torch.testing.assert_close(
            noisy, alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise
        )
        epsilon = (noisy - alpha_bar.sqrt() * images) / (1 - alpha_bar).sqrt()
        v = alpha_bar.sqrt() * epsilon - (1 - alpha_bar).sqrt() * images
        return SimpleNamespace(sample=epsilon if prediction_type == "epsilon" else v)

    def loss(network):
        return denoising_loss(
            network,
            alphas,
            images,
            torch.zeros(3, 1, 4),
            prediction_type=prediction_type,
            timesteps=timesteps,
            noise=noise,
        )

    assert loss(oracle).max() < 1e-8
    silent = loss(lambda noisy, t, states: SimpleNamespace(sample=torch.zeros_like(noisy)))
    assert silent.shape == (3,)
    assert silent.min() > 0.5


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(InputError, match="prediction type"):
        denoising_loss(
            None,
            build_scheduler().alphas_cumprod,
            torch.zeros(1, 2, 4, 4),
            torch.zeros(1, 1, 4),
            prediction_type="sample",
            timesteps=torch.tensor([1]),
            noise=torch.zeros(1, 2, 4, 4),
        )


def image_weight(weighting: str, prediction_type: str, timesteps: torch.Tensor) -> torch.Tensor:
    """How much an error of the image counts: an error e of it is one of √SNR e or √(SNR+1) e."""
    alphas = build_scheduler().alphas_cumprod.double()
    weights = loss_weights(alphas, timesteps, prediction_type=prediction_type, weighting=weighting)
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    return weights * (snr if prediction_type == "epsilon" else snr + 1)


def test_weights_say_how_much_an_error_of_the_image_counts() -> None:
    timesteps = torch.tensor([5, 60, 300, 700, 990])
    alpha_bar = build_scheduler().alphas_cumprod.double()[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    for kind in ("epsilon", "v_prediction"):
        torch.testing.assert_close(image_weight("min_snr", kind, timesteps), snr.clamp_max(5))
    torch.testing.assert_close(image_weight("plain", "epsilon", timesteps), snr)
    balanced = image_weight("balanced", "v_prediction", timesteps)
    torch.testing.assert_close(balanced, 1 / (1 - alpha_bar).sqrt())


def test_weights_that_do_not_suit_are_refused() -> None:
    alphas, t = build_scheduler().alphas_cumprod, torch.tensor([3])
    with pytest.raises(InputError, match="v_prediction"):
        loss_weights(alphas, t, prediction_type="epsilon", weighting="balanced")
    with pytest.raises(InputError, match="plain, balanced, min_snr"):
        loss_weights(alphas, t, prediction_type="epsilon", weighting="flat")


@pytest.mark.parametrize("first", [0, 12_345, 10**7])
@pytest.mark.parametrize("size", [8, 16, 100])
def test_every_batch_holds_all_levels_of_noise(first: int, size: int) -> None:
    timesteps = sorted(spread_timestep(first + k, 1000) for k in range(size))
    gaps = [b - a for a, b in itertools.pairwise([0, *timesteps, 1000])]
    assert max(gaps) <= 2 * 1000 / size + 1
    assert len(set(timesteps)) == size


def test_a_quadratic_density_looks_longer_at_little_noise() -> None:
    drawn = torch.tensor([spread_timestep(k, 1000, "quadratic") for k in range(20_000)])
    for bound in (10, 120, 500):  # P(T u² < bound) = √(bound / T)
        assert (drawn < bound).float().mean() == pytest.approx((bound / 1000) ** 0.5, abs=0.002)
    assert drawn.min() == 0
    assert drawn.max() == 999
    with pytest.raises(InputError, match="expected a timestep density"):
        spread_timestep(1, 1000, "cubic")


def test_dropout_has_the_stated_rates(generator: torch.Generator) -> None:
    metadata = ScanMetadata(
        anatomy="knee", slice=3, contrast="PD", tr=3000, te=30, field_strength=1.5
    )
    prompts = [drop_metadata(metadata, generator) for _ in range(4000)]
    empty = sum(prompt == "" for prompt in prompts) / len(prompts)
    kept = sum("TR" not in prompt for prompt in prompts if prompt) / sum(map(bool, prompts))
    assert empty == pytest.approx(0.1, abs=0.02)
    assert kept == pytest.approx(0.5, abs=0.03)
    complete = "knee, Slice 3, PD, TR: 3000, TE: 30, Field strength: 1.5"
    assert set(prompts) == {"", "knee, Slice 3, PD", complete}


def test_single_fields_are_dropped_on_their_own(generator: torch.Generator) -> None:
    options: dict[str, Any] = {"parameters": 0.0, "prompt": 0.0, "field": 0.2}
    drawn = [from_prompt(drop_metadata(COMPLETE, generator, **options)) for _ in range(2000)]
    for name in ("anatomy", "contrast", "slice", "te"):
        missing = [getattr(item, name) is None for item in drawn]
        assert sum(missing) / len(missing) == pytest.approx(0.2, abs=0.03)
    both = sum(item.te is None and item.slice is None for item in drawn) / len(drawn)
    assert both == pytest.approx(0.04, abs=0.015)


def test_age_and_sex_are_dropped_together(generator: torch.Generator) -> None:
    known = replace(COMPLETE, age=48, sex="F")
    drawn = [from_prompt(drop_metadata(known, generator, prompt=0)) for _ in range(2000)]
    assert {(item.age, item.sex) for item in drawn} == {(48, "F"), (None, None)}
    share = sum(item.age is None for item in drawn) / len(drawn)
    assert share == pytest.approx(0.5, abs=0.03)
    always = [drop_metadata(known, generator, prompt=0, demographics=0.0) for _ in range(50)]
    assert all("Age: 48, Sex: F" in prompt for prompt in always)
    varied = [vary_metadata(known, generator)[1] for _ in range(1000)]
    missing = sum(told.age is None and told.sex is None for told in varied) / len(varied)
    assert missing == pytest.approx(0.5 + 0.5 * 0.15**2, abs=0.05)


def test_prompts_without_age_and_sex_are_as_before() -> None:
    """Nothing more is drawn for them, so runs on sets without go on as they were."""
    both = [torch.Generator().manual_seed(3) for _ in range(2)]
    drop_metadata(COMPLETE, both[0])
    torch.rand(2, generator=both[1])
    assert torch.equal(*(torch.rand(1, generator=one) for one in both))


def test_fields_become_unknown() -> None:
    assert without(COMPLETE, "pathologies", "tr", "sequence", "field_strength") == ScanMetadata(
        anatomy="knee", slice=3, contrast="PD", te=30
    )


def test_a_shuffled_prompt_says_the_same(generator: torch.Generator) -> None:
    prompts = {shuffle_parts(COMPLETE, generator) for _ in range(50)}
    assert len(prompts) > 40
    assert all(from_prompt(prompt) == COMPLETE for prompt in prompts)


def test_varied_prompts_tell_what_they_are_said_to_tell(generator: torch.Generator) -> None:
    drawn = [vary_metadata(COMPLETE, generator) for _ in range(2000)]
    assert all(from_prompt(prompt) == told for prompt, told in drawn)
    rates = {
        name: sum(getattr(told, name) is None for _, told in drawn) / len(drawn)
        for name in ("slice", "tr")
    }
    assert rates["slice"] == pytest.approx(0.15, abs=0.03)
    assert rates["tr"] == pytest.approx(0.2 + 0.8 * 0.15, abs=0.03)
    plain = sum(prompt == told.to_prompt() for prompt, told in drawn) / len(drawn)
    assert 0.65 < plain < 0.8


def test_times_vary_within_bounds_and_stay_possible(generator: torch.Generator) -> None:
    ratios = []
    for _ in range(300):
        protocol = draw_protocol(generator)
        varied = vary_times(protocol, generator)
        assert varied.contrast == protocol.contrast
        tr = present(varied.tr)
        assert present(varied.te) < tr / 2 + 1e-6
        ratios.append(tr / present(protocol.tr))
    assert 0.66 < min(ratios) < 0.75
    assert 1.35 < max(ratios) < 1.51
