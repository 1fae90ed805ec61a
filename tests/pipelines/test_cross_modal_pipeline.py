"""Pipeline with a reference of another contrast, and its checkpoints."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement

import ctxrecon
from ctxrecon.commands.methods import open_model
from ctxrecon.errors import InputError
from ctxrecon.measurement import Measurement
from ctxrecon.pipelines import CrossModalPipeline, load_cross_modal, load_reconstructor
from ctxrecon.reconstructors import CrossModal
from ctxrecon.reconstructors.warp import warp

SMALL = {"width": 2, "depth": 1, "cascades": 1, "synthesis_cascades": 1, "align_width": 2}


def pipeline(*parts, **options) -> CrossModalPipeline:
    torch.manual_seed(0)
    network = CrossModal(**SMALL, align_depth=1, **options)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1 * torch.randn(value.shape)
    made = CrossModalPipeline(network.eval(), *parts)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def guided() -> CrossModalPipeline:
    return pipeline()


@pytest.fixture
def scan():
    """Operator, data and a reference of two slices."""
    operator, y, _ = measurement(shape=(23, 18))
    return operator, y, complex_noise((2, 23, 18), seeded(4))


def test_the_common_call(guided, scan):
    operator, y, reference = scan
    output = guided(y, operator.mask, reference=reference, coil_maps=operator.coil_maps)
    with torch.no_grad():
        direct = guided.reconstructor(operator, y, reference)
    for name in ("images", "aligned", "synthetic", "displacement"):
        torch.testing.assert_close(getattr(output, name), direct[name])
    torch.testing.assert_close(output.aligned, warp(reference, output.displacement))
    error = (operator(output.images) - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
    torch.testing.assert_close(output.residual, error)
    parts = guided(
        y, operator.mask, reference=reference, coil_maps=operator.coil_maps, return_dict=False
    )
    assert torch.equal(parts[1], output.aligned)
    assert torch.equal(parts[3], output.displacement)
    assert len(parts) == 7


def test_references_in_any_form(guided, scan):
    operator, y, reference = scan
    call = {"mask": operator.mask, "coil_maps": operator.coil_maps}
    one = guided(y, reference=reference.abs(), **call)
    for form in (reference.abs().numpy(), reference.abs().double(), 7 * reference.abs()):
        other = guided(y, reference=form, **call)
        torch.testing.assert_close(one.images, other.images, rtol=1e-4, atol=1e-5)
    shared = guided(y, reference=reference[0], **call)
    first = guided(y[:1], operator.mask[:1], reference=reference[:1],
                   coil_maps=operator.coil_maps[:1])  # fmt: skip
    torch.testing.assert_close(shared.images[:1], first.images, rtol=1e-4, atol=1e-5)
    held = Measurement.from_arrays(y, operator.mask, operator.coil_maps)
    torch.testing.assert_close(guided(held, reference=reference.abs()).images, one.images)
    assert isinstance(guided(y, reference=reference, output_type="np", **call).images, np.ndarray)


def test_slices_may_come_in_batches_and_be_empty(guided, scan):
    operator, y, reference = scan
    call = {"mask": operator.mask, "reference": reference, "coil_maps": operator.coil_maps}
    whole, single = guided(y, **call), guided(y, batch_size=1, **call)
    for name in ("images", "aligned", "synthetic", "displacement"):
        torch.testing.assert_close(
            getattr(whole, name), getattr(single, name), rtol=1e-4, atol=1e-5
        )
    y = y.clone()
    y[0] = 0
    output = guided(y, **call)
    assert not output.images[0].any()
    assert not output.synthetic[0].any()
    torch.testing.assert_close(output.images[1], whole.images[1], rtol=1e-4, atol=1e-5)


def test_prompts_are_read_where_they_can(pipe, guided, scan, caplog):
    operator, y, reference = scan
    call = {"mask": operator.mask, "reference": reference, "coil_maps": operator.coil_maps}
    with caplog.at_level(logging.INFO):
        output = guided(y, prompt="Brain, T2", **call)
    assert "accepts no prompt" in caplog.text
    assert output.prompts is None
    reading = pipeline(
        pipe.text_encoder, pipe.tokenizer, text_width=pipe.text_encoder.config.hidden_size
    )
    one = reading(y, prompt="Brain, T2", **call)
    other = reading(y, prompt="Brain, T2, TR: 9000", **call)
    assert one.prompts == ["Brain, T2"] * 2
    assert not torch.equal(one.images, other.images)


def test_checkpoints(guided, scan, tmp_path):
    operator, y, reference = scan
    guided.save_pretrained(tmp_path / "cross")
    call = {"mask": operator.mask, "reference": reference, "coil_maps": operator.coil_maps}
    loaded = ctxrecon.load(tmp_path / "cross")
    assert isinstance(loaded, CrossModalPipeline)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(loaded(y, **call).images, guided(y, **call).images)
    again = CrossModalPipeline.from_pretrained(tmp_path / "cross", dtype="bfloat16")
    assert again.reconstructor.dtype == torch.bfloat16
    again.set_progress_bar_config(disable=True)
    assert again(y, **call).images.dtype == torch.complex64
    with pytest.raises(InputError, match="CrossModal"):
        load_reconstructor(tmp_path / "cross")
    with pytest.raises(InputError, match="train_cross_modal"):
        load_cross_modal(tmp_path)
    with pytest.raises(InputError, match="--reference"):
        open_model(str(tmp_path / "cross"), "cpu", None, "float32")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r[:, :-1], "matrix of the scan"),
        (lambda r: r[None], "matrix of the scan"),
        (lambda r: r * float("nan"), "NaN"),
        (lambda r: r * 0, "empty"),
        (lambda r: r.tolist(), "NumPy array or a torch tensor"),
    ],
)
def test_references_that_do_not_serve(guided, scan, change, said):
    operator, y, reference = scan
    with pytest.raises(InputError, match=said):
        guided(y, operator.mask, reference=change(reference), coil_maps=operator.coil_maps)


def test_two_sets_of_maps_are_refused(guided, scan):
    operator, y, reference = scan
    maps = torch.stack([operator.coil_maps, torch.zeros_like(operator.coil_maps)], dim=1)
    with pytest.raises(InputError, match="num_maps=1"):
        guided(y, operator.mask, reference=reference, coil_maps=maps)
