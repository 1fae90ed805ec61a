from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from narrow import images_of

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.inference.warm_start import SAMPLER
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import ContextMRIPipeline, build_pipeline
from ctxrecon.priors import TextDenoiser, quadratic_timesteps
from ctxrecon.solvers import DDS, SOLVERS, make_solver

PROMPTS = ["Brain, Slice 8, T2", "Knee, Slice 20, PDFS"]


@pytest.fixture(scope="module")
def scan() -> dict[str, torch.Tensor]:
    """Two slices of odd size, four coils, every other line and the centre."""
    source = torch.Generator().manual_seed(1)
    images = torch.zeros(2, 45, 37, dtype=torch.complex64)
    images[0, 10:35, 8:30] = 40.0
    images[1, 20:30, 5:32] = torch.tensor(2.0 + 1.0j)
    maps = simulate_coil_maps(4, (45, 37), generator=source)
    mask = torch.zeros(1, 1, 45, 37, dtype=torch.bool)
    mask[..., ::2] = True
    mask[..., 14:23] = True
    return {"kspace": CartesianSense(mask, maps)(images), "mask": mask, "coil_maps": maps}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_reconstructs_a_batch_of_any_size_with_several_samples(pipe, scan):
    output = pipe(**scan, prompt=PROMPTS, num_inference_steps=3, num_samples=3, generator=seeded(0))
    assert output.images.shape == (2, 45, 37)
    assert output.images.dtype == torch.complex64
    assert output.samples.shape == (2, 3, 45, 37)
    torch.testing.assert_close(output.images, output.samples.mean(1))
    deviation = (output.samples - output.images[:, None]).abs().square().sum(1) / 2
    torch.testing.assert_close(output.std, deviation.sqrt())
    assert output.prompts == PROMPTS
    operator = CartesianSense(scan["mask"], scan["coil_maps"])
    error = operator(output.images) - scan["kspace"]
    expected = error.flatten(1).norm(dim=1) / scan["kspace"].flatten(1).norm(dim=1)
    torch.testing.assert_close(output.residual, expected)
    assert float(output.residual.max()) < 0.3  # an untrained network


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_by_name(pipe, scan, name):
    settings = {"num_inference_steps": 3, "guidance_scale": 1.5}
    named = pipe(**scan, prompt=PROMPTS, solver=name, generator=seeded(0), **settings)
    made = pipe(**scan, prompt=PROMPTS, solver=make_solver(name), generator=seeded(0), **settings)
    assert torch.equal(named.images, made.images)
    assert torch.isfinite(named.images.abs()).all()
    if name != "dps":  # whose gradient steps are small: three from an untrained network are few
        assert float(named.residual.max()) < 1


def test_samples_of_a_solver_that_draws_nothing(pipe, scan):
    with pytest.raises(InputError, match=r"PnPHQS .* 3 samples"):
        pipe(**scan, solver="pnp_hqs", num_samples=3)


def test_timesteps_may_be_given(pipe, scan):
    call = {**scan, "prompt": PROMPTS, "num_inference_steps": 4}

    def run(**chosen):
        return pipe(**call, generator=seeded(0), **chosen).images

    assert torch.equal(run(), run(timesteps=quadratic_timesteps(4)))
    assert torch.equal(run(timesteps="scheduler"), run(timesteps=pipe.set_timesteps(4)))
    assert not torch.allclose(run(), run(timesteps="scheduler"))
    with pytest.raises(InputError, match=r"quadratic.* 'linear'"):
        run(timesteps="linear")
    for image in (None, "zero_filled"):  # of which the first timestep is looked at early
        with pytest.raises(InputError, match="strictly descending"):
            pipe(**scan, prompt=PROMPTS, timesteps=[10, 20], image=image)
        with pytest.raises(InputError, match="from 0 to 999"):
            pipe(**scan, prompt=PROMPTS, timesteps=[1000, 20], image=image)
        with pytest.raises(InputError, match="at least one timestep"):
            pipe(**scan, prompt=PROMPTS, timesteps=[], image=image)
    given = np.array(quadratic_timesteps(4))
    assert torch.equal(run(), run(timesteps=given))


@pytest.mark.parametrize("split", [{"num_samples": 2}, {"batch_size": 1}])
def test_a_volume_is_not_split(pipe, scan, split):
    with pytest.raises(InputError, match=r"DDS3D .* one batch"):
        pipe(**scan, prompt=PROMPTS, solver="dds3d", num_inference_steps=2, **split)


def test_one_slice_without_coils_from_numpy(pipe, scan):
    kspace = scan["kspace"][0, 0].numpy()
    output = pipe(kspace, scan["mask"][0, 0].numpy(), num_inference_steps=2, generator=seeded(0))
    assert output.images.shape == (1, 45, 37)
    assert output.samples is None
    assert output.std is None
    assert output.coil_maps is None


def test_same_seeds_give_the_same_images_however_they_are_batched(pipe, scan):
    settings = {"num_inference_steps": 3, "num_samples": 2, "guidance_scale": 1.5, "solver": "dds"}
    together = pipe(**scan, prompt=PROMPTS, generator=[seeded(5), seeded(6)], **settings)
    in_threes = pipe(
        **scan, prompt=PROMPTS, generator=[seeded(5), seeded(6)], batch_size=3, **settings
    )
    torch.testing.assert_close(in_threes.samples, together.samples, atol=1e-3, rtol=1e-4)
    for index, seed in enumerate((5, 6)):
        alone = pipe(
            scan["kspace"][index],
            scan["mask"],
            PROMPTS[index],
            coil_maps=scan["coil_maps"],
            generator=seeded(seed),
            **settings,
        )
        torch.testing.assert_close(alone.samples[0], together.samples[index], atol=1e-3, rtol=1e-4)
    first = pipe(
        **scan, prompt=PROMPTS, generator=[seeded(5), seeded(6)], **settings | {"num_samples": 1}
    )
    torch.testing.assert_close(first.images, together.samples[:, 0], atol=1e-3, rtol=1e-4)


def test_masks_and_maps_of_each_slice_go_with_their_samples(pipe, scan):
    masks = scan["mask"].repeat(2, 1, 1, 1)
    masks[1] = True
    maps = torch.cat([scan["coil_maps"], simulate_coil_maps(4, (45, 37), generator=seeded(9))])
    kspace = CartesianSense(masks, maps)(torch.ones(2, 45, 37, dtype=torch.complex64))
    settings = {"num_inference_steps": 2, "num_samples": 2, "solver": "dds"}
    together = pipe(kspace, masks, coil_maps=maps, generator=[seeded(1), seeded(2)], **settings)
    alone = pipe(kspace[1:], masks[1:], coil_maps=maps[1:], generator=seeded(2), **settings)
    torch.testing.assert_close(alone.samples[0], together.samples[1], atol=1e-4, rtol=1e-4)


def test_result_scales_with_the_measurement(pipe, scan):
    settings = {"num_inference_steps": 2, "prompt": PROMPTS, "solver": "dds"}
    small = pipe(**scan, generator=seeded(0), **settings)
    large = pipe(**scan | {"kspace": 1e4 * scan["kspace"]}, generator=seeded(0), **settings)
    torch.testing.assert_close(large.images, 1e4 * small.images, rtol=1e-3, atol=1.0)


def test_prior_sees_images_at_its_training_scale(pipe, scan):
    operator = CartesianSense(scan["mask"], scan["coil_maps"])

    class Recorder:
        def __call__(self, denoiser, operator, y, **call):
            self.y, self.shape = y, operator.domain_shape
            return torch.zeros(len(y), *operator.domain_shape[1:], dtype=torch.complex64)

    recorder = Recorder()
    pipe(**scan, solver=recorder, num_inference_steps=1)
    assert recorder.shape == (1, 48, 40)
    for y in recorder.y:
        image = operator.adjoint(y[None])
        assert 0.4 < float(torch.quantile(image.abs(), 0.99)) < 2.0


def test_pixels_that_no_coil_sees_are_zero(pipe, scan):
    maps = scan["coil_maps"].clone()
    maps[..., :6] = 0
    images = pipe(**scan | {"coil_maps": maps}, num_inference_steps=1).images
    assert bool((images[..., :6] == 0).all())
    assert bool((images[..., 6:] != 0).any())


def test_no_prompt_is_guidance_zero_and_logged(pipe, scan, caplog):
    settings = {"num_inference_steps": 2, "solver": "dds"}
    with caplog.at_level(logging.INFO):
        without = pipe(**scan, generator=seeded(0), **settings)
    assert "no prompt given" in caplog.text
    ignored = pipe(**scan, prompt=PROMPTS, guidance_scale=0, generator=seeded(0), **settings)
    torch.testing.assert_close(without.images, ignored.images)
    prompted = pipe(**scan, prompt=PROMPTS, generator=seeded(0), **settings)
    assert not torch.allclose(without.images, prompted.images)


def test_embeddings_may_replace_the_prompt(pipe, scan):
    settings = {"num_inference_steps": 2, "guidance_scale": 1, "solver": "dds"}
    embeds = pipe.encode_prompt(PROMPTS)
    assert embeds.shape[:2] == (2, 77)
    by_prompt = pipe(**scan, prompt=PROMPTS, generator=seeded(0), **settings)
    by_embeds = pipe(**scan, prompt_embeds=embeds, generator=seeded(0), **settings)
    torch.testing.assert_close(by_prompt.images, by_embeds.images)


def test_callback_sees_images_and_may_replace_latents(pipe, scan):
    steps = []

    def on_step_end(pipeline, step, timestep, tensors):
        assert pipeline is pipe
        steps.append((step, timestep, {name: tuple(t.shape) for name, t in tensors.items()}))
        return {"latents": torch.zeros_like(tensors["latents"])}

    settings = {"num_inference_steps": 3, "solver": DDS(eta=0.0)}
    zeroed = pipe(
        **scan,
        generator=seeded(0),
        callback_on_step_end=on_step_end,
        callback_on_step_end_tensor_inputs=["latents", "images"],
        **settings,
    )
    assert [step for step, _, _ in steps] == [0, 1, 2]
    assert steps[0][2] == {"latents": (2, 2, 48, 40), "images": (2, 45, 37)}
    free = pipe(**scan, generator=seeded(0), **settings)
    assert not torch.allclose(zeroed.images, free.images)


def test_starting_noise_may_be_given(pipe, scan):
    noise = torch.randn(2, 2, 48, 40, generator=seeded(0))
    settings = {"num_inference_steps": 2, "solver": DDS(eta=0.0), "latents": noise}
    first, second = (pipe(**scan, generator=seeded(s), **settings).images for s in (0, 1))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("output_type", ["pt", "np", "pil"])
def test_output_types_and_tuple(pipe, scan, output_type):
    images, std, samples, residual, coil_maps, prompts = pipe(
        **scan, num_inference_steps=1, output_type=output_type, return_dict=False
    )
    assert len(images) == 2
    assert std is samples is prompts is None
    assert residual.shape == (2,)
    assert coil_maps.shape == (1, 4, 45, 37)
    if output_type == "np":
        assert images.dtype == np.complex64
    if output_type == "pil":
        assert images[0].size == (37, 45)


def test_generates_from_text_and_without(pipe):
    settings = {"num_inference_steps": 3, "height": 18, "width": 21}
    images = pipe.generate(PROMPTS, num_images_per_prompt=2, generator=seeded(0), **settings)
    assert images.images.shape == (4, 18, 21)
    assert images.prompts == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
    assert bool(torch.isfinite(images.images.abs()).all())
    again = pipe.generate(PROMPTS, num_images_per_prompt=2, generator=seeded(0), **settings)
    assert torch.equal(images.images, again.images)
    unconditional = pipe.generate(num_inference_steps=2, generator=seeded(0))
    assert unconditional.images.shape == (1, 16, 16)
    assert unconditional.prompts is None


def test_generation_follows_the_plain_ddim_scheduler(pipe):
    """Same noise, same network, diffusers' own step: the same image."""
    text = pipe.encode_prompt(PROMPTS[:1])
    noise = pipe.prepare_latents(
        (1, 16, 16),
        [seeded(int(torch.randint(2**62, (), generator=seeded(4))))],
        device=torch.device("cpu"),
    )
    pipe.scheduler.set_timesteps(4)
    x_t = noise
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            output = pipe.unet(x_t, t, encoder_hidden_states=text).sample
            x_t = pipe.scheduler.step(output, t, x_t, eta=0.0).prev_sample
    image = pipe.generate(
        PROMPTS[0], guidance_scale=1, num_inference_steps=4, generator=seeded(4)
    ).images
    torch.testing.assert_close(torch.view_as_real(image), x_t.movedim(1, -1), atol=1e-4, rtol=1e-4)


def test_network_in_half_precision(pipe, scan):
    half = ContextMRIPipeline(**{**pipe.components, "unet": pipe.unet})
    half.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"num_inference_steps": 2, "prompt": PROMPTS, "solver": "dds"}
    single = pipe(**scan, generator=seeded(0), **settings).images
    try:
        half.to(torch.bfloat16)
        images = images_of(half(**scan, generator=seeded(0), **settings))
    finally:
        half.to(torch.float32)
    assert images.dtype == torch.complex64
    assert float((images - single).norm() / single.norm()) < 0.05


def test_denoiser_of_the_pipeline_has_the_multiple_of_its_depth(pipe):
    embeds = pipe.encode_prompt([""])
    assert TextDenoiser(pipe.unet, pipe.scheduler, None, embeds, 0).size_multiple == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guidance_scale": -1.0}, r"guidance_scale .* -1\.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale .* nan"),
        ({"num_inference_steps": 0}, "num_inference_steps .* 0"),
        ({"num_inference_steps": 1001}, "num_inference_steps .* 1001"),
        ({"num_inference_steps": 2.5}, r"num_inference_steps .* 2\.5"),
        ({"num_samples": 0}, "num_samples .* 0"),
        ({"num_samples": True}, "num_samples .* True"),
        ({"batch_size": 0}, "batch_size .* 0"),
        ({"output_type": "png"}, "output_type .*'png'"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"got \['noise'\]"),
        ({"generator": [torch.Generator()] * 3}, "2 slices, got 3"),
        ({"generator": 3}, "torch.Generator .* int"),
        ({"prompt": ["Brain"]}, "prompt .*2 slices, got 1"),
        ({"prompt": []}, "prompt .*2 slices, got 0"),
        ({"prompt": 3}, "prompt .* int"),
        ({"prompt": ["Brain", None]}, "prompt .* NoneType"),
        ({"prompt": "Brain", "prompt_embeds": torch.zeros(1, 77, 128)}, "got both"),
        ({"prompt_embeds": torch.zeros(1, 77, 5)}, r"\(2 or 1, tokens, 128\), got \(1, 77, 5\)"),
        ({"latents": torch.zeros(2, 2, 45, 37)}, r"latents of shape \(2, 2, 48, 40\)"),
        ({"prompt": "Brain, " + "unheard of " * 60}, "tokens"),
    ],
)
def test_malformed_arguments_have_their_own_sentence(pipe, scan, change, sentence):
    with pytest.raises(InputError, match=sentence):
        pipe(**scan, **change)


def test_malformed_generation_is_refused(pipe):
    with pytest.raises(InputError, match="height 1 or more, got 0"):
        pipe.generate(height=0)
    with pytest.raises(InputError, match="eta between 0 and 1"):
        pipe.generate(eta=-0.1)
    with pytest.raises(InputError, match=r"num_inference_steps .* 1000"):
        pipe.generate("Brain", num_inference_steps=0)


def test_the_default_is_an_estimate_and_samples_start_from_it(pipe, scan):
    call = {**scan, "prompt": PROMPTS, "num_inference_steps": 4}
    estimate = pipe(**call).images
    assert torch.equal(estimate, pipe(**call, solver="pnp_admm").images)
    samples = pipe(**call, num_samples=2, generator=seeded(0)).samples
    named = pipe(**call, num_samples=2, generator=seeded(0), solver=SAMPLER, image="pnp_admm")
    assert torch.equal(samples, named.samples)
    from_image = pipe(**call, image=estimate, generator=seeded(0))
    again = pipe(**call, image=estimate, generator=seeded(0), solver=SAMPLER)
    assert torch.equal(from_image.images, again.images)


@pytest.mark.parametrize("how", ["compiled", "bfloat16"])
def test_a_compiled_network_and_one_in_half_precision(scan, how):
    """Dynamo's graphs are traced and run; what makes machine code of them takes a compiler."""
    own = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=3)
    own.set_progress_bar_config(disable=True)
    call = {**scan, "prompt": PROMPTS, "num_inference_steps": 2, "guidance_scale": 1.5}
    before = images_of(own(**call))
    if how == "compiled":
        own.unet.compile(backend="aot_eager")
    else:
        own.unet.to(torch.bfloat16)
    after = images_of(own(**call))
    difference = float((after - before).norm() / before.norm())
    assert difference < (1e-4 if how == "compiled" else 0.02)
    assert after.dtype == torch.complex64
