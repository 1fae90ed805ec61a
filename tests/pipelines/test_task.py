"""Tasks from k-space: pipeline call, samples independent of the batch, checkpoints."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import present

import ctxrecon
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks.learned import (
    LOUPE,
    FixedMasks,
    PatternGenerator,
    PerContrastSampler,
    SequentialSampler,
)
from ctxrecon.measurement import Measurement
from ctxrecon.pipelines import TaskPipeline, load_task
from ctxrecon.pipelines.task import disagreement
from ctxrecon.tasks import FindingClassifier, ImageDecoder, LatentSegmenter

SHAPE = (32, 32)
SIZES = {"width": 4, "depth": 3, "layers": 1, "latent_channels": 2}


def segmenting(image: bool = True, sampler: Any = None) -> TaskPipeline:
    torch.manual_seed(0)
    sampler = sampler or LOUPE(SHAPE, 3.0, lines=False, center_fraction=0.25)
    network = LatentSegmenter(num_classes=3, **SIZES)
    with torch.no_grad():  # draws that differ, classes that are all there
        network.latent_head.weight *= 5
        network.decoder.conv_out.weight *= 5
    decoder = ImageDecoder(**SIZES) if image else None
    pipe = TaskPipeline(sampler, network, decoder, classes=["cartilage", "meniscus"])
    for part in pipe.components.values():
        if part is not None:
            part.eval()
    return pipe


def classifying() -> TaskPipeline:
    torch.manual_seed(0)
    sampler = PatternGenerator(SHAPE, (0.2, 0.5), lines=False, center_fraction=0.25)
    return TaskPipeline(sampler, FindingClassifier(["a", "b"], width=4).eval(), classes=["a", "b"])


def scan(batch: int = 2, coils: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    source = seeded(5)
    images = complex_noise((batch, *SHAPE), source)
    images[:, 8:24, 8:24] += 4
    maps = simulate_coil_maps(coils, SHAPE, generator=source)
    return fft2c(maps * images[:, None]), maps


class TestSegmentation:
    def test_what_comes_out(self):
        kspace, _ = scan()
        output = segmenting()(kspace, num_samples=5, generator=seeded(0))
        assert present(output.samples).shape == (2, 5, *SHAPE)
        assert present(output.samples).dtype == torch.uint8
        assert int(present(output.samples).max()) == 2
        assert output.probabilities.shape == (2, 3, *SHAPE)
        torch.testing.assert_close(output.probabilities.sum(dim=1), torch.ones(2, *SHAPE))
        assert present(output.images).dtype == torch.complex64
        assert present(output.std).shape == (2, *SHAPE)
        assert bool((present(output.std) > 0).all())
        assert output.masks.shape == (2, 1, *SHAPE)
        assert output.masks.float().mean() == pytest.approx(1 / 3, abs=0.01)
        spread = present(output.disagreement)
        assert 0 < float(spread.mean()) < 1
        # Where all samples agree there is none.
        agreed = (present(output.samples) == present(output.samples)[:, :1]).all(dim=1)
        assert bool(((spread == 0) == agreed).all())

    def test_disagreement_is_of_pairs(self):
        samples = torch.randint(0, 3, (5, 4, 4), generator=seeded(0))
        pairs = [(a != b).float() for a, b in itertools.combinations(samples, 2)]
        torch.testing.assert_close(disagreement(samples, 3), torch.stack(pairs).mean(dim=0))

    def test_neither_batches_nor_more_samples_change_a_sample(self):
        pipe, (kspace, _) = segmenting(), scan()
        both = pipe(kspace, num_samples=5, generator=seeded(3))
        again = pipe(kspace, num_samples=5, generator=seeded(3), batch_size=2)
        assert torch.equal(present(both.samples), present(again.samples))
        torch.testing.assert_close(both.probabilities, again.probabilities)
        few = pipe(kspace, num_samples=2, generator=seeded(3))
        assert torch.equal(present(few.samples), present(both.samples)[:, :2])
        source = seeded(3)
        for number in range(2):
            one = pipe(kspace[number], num_samples=5, generator=source)
            assert torch.equal(one.masks, both.masks[number : number + 1])
            assert torch.equal(present(one.samples)[0], present(both.samples)[number])
        listed = pipe(kspace, num_samples=5, generator=[seeded(7), seeded(8)])
        alone = pipe(kspace[1:], num_samples=5, generator=[seeded(8)])
        assert torch.equal(present(alone.samples)[0], present(listed.samples)[1])
        assert not torch.equal(present(listed.samples), present(both.samples))

    def test_a_measurement_as_it_is(self):
        pipe, (kspace, maps) = segmenting(), scan(coils=4)
        mask = FixedMasks(SHAPE, 2.0, center_fraction=0.25)(batch_size=1, generator=seeded(0))
        output = pipe(kspace * mask, mask, coil_maps=maps, num_samples=2, generator=seeded(1))
        assert torch.equal(output.masks, mask)
        measurement = Measurement.from_arrays(kspace * mask, mask, maps)
        again = pipe(measurement, num_samples=2, generator=seeded(1))
        assert torch.equal(present(again.samples), present(output.samples))
        # The networks see the zero-filled image.
        zero_filled = (maps.conj() * ifft2c(kspace * mask)).sum(dim=1)
        network: Any = pipe.network
        features, scale = network.encode(zero_filled)
        image, _ = present(pipe.image_decoder)(features, scale, zero_filled)
        torch.testing.assert_close(present(output.images), image, rtol=1e-3, atol=1e-4)

    def test_one_sample_and_no_image(self):
        output = segmenting(image=False)(scan()[0], num_samples=1, generator=seeded(0))
        assert output.disagreement is None
        assert output.images is None
        assert output.std is None

    def test_any_acceleration_of_a_generator(self):
        pipe = segmenting(sampler=PatternGenerator(SHAPE, lines=False, center_fraction=0.1))
        for acceleration in (4.0, 8.0):
            output = pipe(scan()[0], acceleration=acceleration, num_samples=1)
            assert output.masks.float().mean() == pytest.approx(1 / acceleration, abs=1e-3)

    def test_slices_without_signal(self, caplog):
        kspace, _ = scan()
        kspace[0] = 0
        output = segmenting()(kspace, num_samples=2, generator=seeded(0))
        assert not present(output.samples)[0].any()
        assert bool(output.probabilities[0].isnan().all())
        assert not output.probabilities[1].isnan().any()
        assert "slice 0" in caplog.text

    def test_refusals(self):
        pipe, (kspace, _) = segmenting(), scan()
        mask = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
        refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("num_samples", (kspace,), {"num_samples": 0}),
            ("acceleration", (kspace,), {"acceleration": 0.5}),
            ("either acceleration or a mask", (kspace, mask), {"acceleration": 2.0}),
            ("of the matrix", (kspace[..., :20],), {}),
            ("not zero", (kspace * (torch.arange(32) % 2),), {}),
            ("batch_size", (kspace,), {"batch_size": 0}),
            ("generator", (kspace,), {"generator": [seeded(0)]}),
        ]
        for sentence, arguments, options in refused:
            with pytest.raises(InputError, match=sentence):
                pipe(*arguments, **options)


class TestClassification:
    def test_probabilities_and_nothing_else(self):
        kspace, _ = scan(3)
        output = classifying()(kspace, acceleration=3, generator=seeded(0))
        assert output.probabilities.shape == (3, 2)
        assert bool(((output.probabilities > 0) & (output.probabilities < 1)).all())
        assert output.samples is None
        assert output.images is None
        assert output.disagreement is None

    def test_broken_weights_are_no_slice_without_signal(self):
        pipe = classifying()
        with torch.no_grad():
            for value in pipe.network.parameters():
                value.fill_(torch.nan)
        kspace, _ = scan(2)
        kspace[0] = 0
        with pytest.raises(InputError, match="slice 1"):
            pipe(kspace, acceleration=3, generator=seeded(0))


class TestParts:
    def test_what_does_not_fit(self):
        network = LatentSegmenter(**SIZES)
        adaptive = SequentialSampler(SHAPE, 3.0, 2, center_fraction=0.25, width=4)
        several = PerContrastSampler(SHAPE, 2, 3.0, center_fraction=0.25)
        for sampler in (adaptive, several):
            with pytest.raises(InputError, match="another sampler"):
                TaskPipeline(sampler, network, classes=["mass"])
        with pytest.raises(InputError, match="1 names"):
            TaskPipeline(LOUPE(SHAPE, 3.0), network, classes=["mass", "edema"])
        with pytest.raises(InputError, match="latent segmenter"):
            TaskPipeline(
                LOUPE(SHAPE, 3.0), FindingClassifier(["a"], width=4), ImageDecoder(**SIZES), ["a"]
            )

    def test_round_trip(self, tmp_path):
        pipe, (kspace, _) = segmenting(), scan()
        pipe.save_pretrained(tmp_path / "task")
        expected = pipe(kspace, num_samples=2, generator=seeded(0))
        for load in (load_task, ctxrecon.load, TaskPipeline.from_pretrained):
            again = load(tmp_path / "task")
            assert isinstance(again, TaskPipeline)
            assert again.config.classes == ["cartilage", "meniscus"]
            found = again(kspace, num_samples=2, generator=seeded(0))
            assert torch.equal(present(found.samples), present(expected.samples))
            assert torch.equal(present(found.images), present(expected.images))
        # Segmentations need no more than what is left.
        shutil.rmtree(tmp_path / "task" / "image_decoder")
        found = load_task(tmp_path / "task")(kspace, num_samples=2, generator=seeded(0))
        assert torch.equal(present(found.samples), present(expected.samples))
        assert found.images is None

    def test_a_classifier_round_trips(self, tmp_path):
        pipe, (kspace, _) = classifying(), scan()
        pipe.save_pretrained(tmp_path / "task")
        expected = pipe(kspace, acceleration=3, generator=seeded(0)).probabilities
        again = load_task(tmp_path / "task")
        found = again(kspace, acceleration=3, generator=seeded(0)).probabilities
        assert torch.equal(found, expected)

    def test_damaged_folders(self, tmp_path):
        segmenting().save_pretrained(tmp_path / "task")
        path = tmp_path / "task" / "network" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "_class_name": "Exploit"}))
        with pytest.raises(InputError, match="'Exploit'"):
            load_task(tmp_path / "task")
        path.write_text(json.dumps(config))
        index = tmp_path / "task" / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "classes": "mass"}))
        with pytest.raises(InputError, match="names of classes"):
            load_task(tmp_path / "task")
        with pytest.raises(InputError, match="diffusion prior"):
            ctxrecon.load(tmp_path / "task", subfolder="fastmri")
