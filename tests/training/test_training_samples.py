"""Training samples of the prior: mixtures, sizes, flips, and distribution over processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, PhantomSlices, knee_anatomy
from ctxrecon.priors.tokenizer import build_tokenizer
from ctxrecon.training.loop import SampleNumbers
from ctxrecon.training.prior import PriorSamples
from ctxrecon.training.slices import PreparedSlices, resize, tokens_of


class Numbered(Dataset[dict[str, Any]]):
    """A prepared set whose item k is the constant k + 1, brighter on the right."""

    def __init__(self, size: int, anatomy: str = "brain") -> None:
        self.size, self.anatomy = size, anatomy

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        image = torch.full((2, 24, 32), float(index + 1))
        image[..., 16:] += 0.25
        return {"image": image, "metadata": ScanMetadata(anatomy=self.anatomy, slice=index)}


def test_every_slice_comes_once_an_epoch_and_each_epoch_in_its_own_order() -> None:
    slices = PreparedSlices(Numbered(37), seed=3)
    epochs = [
        [slices.draw(epoch * 37 + k, 16)["metadata"].slice for k in range(37)] for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(37))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize(("anatomy", "share"), [("brain", 0.5), ("knee", 0.5), ("heart", 0.0)])
def test_only_symmetric_anatomies_are_flipped(anatomy: str, share: float) -> None:
    slices = PreparedSlices(Numbered(1, anatomy), seed=0)
    images = [slices.draw(number, 16)["image"][0] for number in range(200)]
    flipped = sum(bool(image[:, 2].mean() > image[:, -3].mean()) for image in images) / 200
    assert flipped == pytest.approx(share, abs=0.1)


def test_a_small_part_of_a_prepared_slice_names_no_findings() -> None:
    class Torn(Numbered):
        def __getitem__(self, index: int) -> dict:
            item = super().__getitem__(index)
            return {**item, "metadata": replace(item["metadata"], pathologies=("Mass",))}

    slices = PreparedSlices(Torn(1))
    assert slices.recipe(0, 16, 1.0).metadata.pathologies == ("Mass",)
    assert slices.recipe(0, 16, None).metadata.pathologies == ()


def test_the_field_of_view_shrinks_as_far_as_allowed() -> None:
    class Ramp(Numbered):
        def __getitem__(self, index: int) -> dict:
            ramp = torch.linspace(-1, 1, 64).expand(2, 64, 64)
            return {"image": ramp, "metadata": ScanMetadata(anatomy="heart")}

    slices = PreparedSlices(Ramp(1), field_of_view=0.5)
    spans = []
    for number in range(60):
        row = slices.draw(number, 32)["image"][0, 16]
        spans.append(float(row[22] - row[10]) / (12 / 31 * 2))  # away from the edges' ringing
    assert 0.45 < min(spans) < 0.62
    assert 0.85 < max(spans) < 1.1
    with pytest.raises(InputError, match=r"field.of.view"):
        PreparedSlices(Ramp(1), field_of_view=0.0)


@pytest.mark.parametrize(("side", "resolution"), [(32, 20), (21, 32), (24, 24)])
def test_resizing_keeps_a_constant_and_a_smooth_image(side: int, resolution: int) -> None:
    def image(n: int) -> torch.Tensor:
        place = (torch.arange(n, dtype=torch.float64) - n // 2) / n
        wave = torch.exp(2j * torch.pi * (3 * place[:, None] - 2 * place[None]))
        return (2 + wave).to(torch.complex64)

    torch.testing.assert_close(resize(image(side), resolution), image(resolution))


def bank() -> AnatomyBank:
    generator = torch.Generator().manual_seed(0)
    return AnatomyBank.build([knee_anatomy(generator, size=64) for _ in range(2)])


def prior_samples(**options) -> PriorSamples:
    settings = {
        "sources": [PhantomSlices(bank(), seed=1), PreparedSlices(Numbered(5))],
        "weights": [3.0, 1.0],
        "tokenizer": build_tokenizer(),
        "resolutions": [16, 32],
        "num_timesteps": 1000,
    }
    return PriorSamples(**{**settings, **options})


def rendered(samples: PriorSamples, step: int, numbers: range) -> dict[str, torch.Tensor]:
    return samples.render(samples.collate([samples[step, number] for number in numbers]))


def test_a_sample_follows_from_its_number_alone() -> None:
    one, other = prior_samples(), prior_samples()
    first, second = rendered(one, 7, range(123, 124)), rendered(other, 7, range(123, 124))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(rendered(one, 7, range(124, 125))["noise"], first["noise"])


def test_a_batch_holds_what_its_samples_hold_alone() -> None:
    samples = prior_samples(field_of_view=0.7, native_share=0.5)
    for step in range(3):
        batch = rendered(samples, step, range(8))
        rows = [rendered(samples, step, range(number, number + 1)) for number in range(8)]
        found = set()
        for row in rows:
            place = int((batch["noise"] - row["noise"]).abs().amax((1, 2, 3)).argmin())
            found.add(place)
            for name, value in row.items():
                torch.testing.assert_close(batch[name][place], value[0], rtol=1e-4, atol=1e-5)
        assert found == set(range(8))


def test_sources_mix_by_weight_and_sizes_change_from_step_to_step() -> None:
    samples = prior_samples(prompt_dropout=0.0)
    prepared = sum(samples[0, number]["prompt"].startswith("brain") for number in range(300)) / 300
    assert prepared == pytest.approx(0.25, abs=0.08)
    sizes = [samples.resolution(step) for step in range(40)]
    assert set(sizes) == {16, 32}
    for step in range(4):
        batch = rendered(samples, step, range(3))
        assert batch["image"].shape == batch["noise"].shape == (3, 2, sizes[step], sizes[step])
        assert batch["tokens"].shape == (3, 77)
        assert batch["timestep"].dtype == torch.int64


def test_a_slice_with_too_many_findings_loses_the_end_of_its_prompt() -> None:
    tokenizer = prior_samples().tokenizer
    prompt = "brain, T1, " + ", ".join(f"{number} Mass" for number in range(60))
    first, second = tokens_of(tokenizer, [prompt, "brain, T1"])
    assert first.shape == second.shape == (77,)
    assert "59" not in tokenizer.decode(first)
    assert tokenizer.decode(first, skip_special_tokens=True).startswith("brain")


def test_each_step_shows_a_part_of_the_slices_or_their_own_pixels() -> None:
    parts = [prior_samples(field_of_view=0.6, native_share=0.3).part(step) for step in range(400)]
    shown = [part for part in parts if part is not None]
    assert len(shown) / 400 == pytest.approx(0.7, abs=0.07)
    assert 0.6 <= min(shown) < 0.65
    assert 0.95 < max(shown) <= 1.0
    assert {prior_samples().part(step) for step in range(20)} == {1.0}


def test_prompts_are_of_the_prepared_sets_own_form() -> None:
    class SkmTea(Numbered):
        prompt_form = "skm-tea"

    samples = prior_samples(
        sources=[PreparedSlices(SkmTea(3, "knee"))], weights=[1.0], prompt_dropout=0.0
    )
    assert {samples[0, number]["prompt"] for number in range(9)} == {
        f"Knee, Slice {index}" for index in range(3)
    }


def test_unsuitable_mixes_are_refused() -> None:
    with pytest.raises(InputError, match="--train_data_dir"):
        prior_samples(sources=[], weights=[])
    with pytest.raises(InputError, match="2 data sources"):
        prior_samples(weights=[1.0])
    with pytest.raises(InputError, match="prompt_dropout` between 0 and 1"):
        prior_samples(prompt_dropout=1.5)


@pytest.mark.parametrize("native_share", [0.0, 1.0])
def test_a_bank_with_fewer_pixels_than_the_images_is_refused(native_share: float) -> None:
    samples = prior_samples(resolutions=[96], native_share=native_share)
    with pytest.raises(InputError, match="64 × 64 pixels, got 96"):
        [samples[0, number] for number in range(10)]


def test_a_phantom_slice_may_show_a_part_of_the_anatomy() -> None:
    whole = PhantomSlices(bank(), resolution=32, noise=0.0)
    parts = PhantomSlices(bank(), resolution=32, noise=0.0, field_of_view=0.6)
    assert whole[3]["image"].shape == parts[3]["image"].shape == (2, 32, 32)
    assert parts.draw(3, 16)["image"].shape == (2, 16, 16)
    assert not torch.allclose(whole[3]["image"], parts[3]["image"])
    magnitude = torch.linalg.vector_norm(parts[3]["image"], dim=0)
    assert np.quantile(magnitude.numpy(), 0.99) == pytest.approx(1, abs=0.05)
    with pytest.raises(InputError, match=r"field.of.view"):
        PhantomSlices(bank(), field_of_view=1.2)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("parts", [1, 2])
def test_processes_share_the_samples_of_a_step(world: int, parts: int) -> None:
    size = 8 // (world * parts)
    seen = [list(SampleNumbers(range(3, 6), size, parts, rank, world)) for rank in range(world)]
    for index in range(3 * parts):
        numbers = [place for rank in range(world) for place in seen[rank][index]]
        assert len(set(numbers)) == 8 // parts
    for step in range(3):
        every = sorted(
            number
            for rank in range(world)
            for part in range(parts)
            for _, number in seen[rank][step * parts + part]
        )
        assert every == list(range(8 * (step + 3), 8 * (step + 4)))
    assert len(SampleNumbers(range(3, 6), size, parts, 0, world)) == 3 * parts
