from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from ctxrecon.errors import InputError
from ctxrecon.priors import TextDenoiser, build_scheduler, build_text_encoder, build_unet

WIDTH = 8


class CountingUNet:
    """Answers with the mean of the text states, and remembers the batches it saw."""

    dtype = torch.float32

    def __init__(self, channels: int = 2) -> None:
        self.config = SimpleNamespace(
            in_channels=channels, out_channels=channels, block_out_channels=(8, 8, 8)
        )
        self.batches: list[int] = []

    def __call__(self, sample, timestep, *, encoder_hidden_states, return_dict):
        self.batches.append(len(sample))
        assert len(encoder_hidden_states) == len(sample)
        return (encoder_hidden_states.mean(dim=(1, 2))[:, None, None, None].expand_as(sample),)


def scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, clip_sample=False
    )


def denoiser(unet=None, guidance_scale: float = 1.0, prediction_type: str = "epsilon"):
    return TextDenoiser(
        unet or CountingUNet(),
        scheduler(prediction_type),
        torch.full((1, 4, WIDTH), 3.0),
        torch.full((1, 4, WIDTH), 1.0),
        guidance_scale,
    )


@pytest.mark.parametrize(
    ("guidance_scale", "batches", "output"),
    [(0, [2], 1.0), (1, [2], 3.0), (2.5, [4], 1.0 + 2.5 * 2.0), (0.5, [4], 2.0)],
)
def test_guidance_is_exact_and_evaluates_no_more_than_needed(guidance_scale, batches, output):
    unet = CountingUNet()
    _, eps = denoiser(unet, guidance_scale)(torch.zeros(2, 2, 8, 8), 10)
    assert unet.batches == batches
    assert torch.equal(eps, torch.full_like(eps, output))


@pytest.mark.parametrize(("guidance_scale", "batches"), [(1, [2, 2, 1]), (2.5, [4, 4, 2])])
def test_a_few_images_are_evaluated_at_once(guidance_scale, batches):
    states = torch.rand(5, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    found = []
    for at_once in (None, 2):
        unet = CountingUNet()
        parts = unet, scheduler(), states, 2 * states, guidance_scale, at_once
        found.append(TextDenoiser(*parts)(torch.zeros(5, 2, 8, 8), 10)[1])
    assert unet.batches == batches
    assert torch.equal(*found)


def test_embeddings_that_guidance_does_not_use_may_be_absent():
    embeds = torch.ones(1, 4, WIDTH)
    TextDenoiser(CountingUNet(), scheduler(), None, embeds, 0)
    TextDenoiser(CountingUNet(), scheduler(), embeds, None, 1)
    with pytest.raises(InputError, match="needs prompt_embeds"):
        TextDenoiser(CountingUNet(), scheduler(), None, embeds, 2)
    with pytest.raises(InputError, match="needs uncond_embeds"):
        TextDenoiser(CountingUNet(), scheduler(), embeds, None, 2)


class OracleUNet(CountingUNet):
    """Knows ``x0`` and ``ε`` and answers in the parameterisation asked for."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def __call__(self, sample, timestep, *, encoder_hidden_states, return_dict):
        return (self.answer,)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [0, 300, 900])
def test_every_parameterisation_recovers_image_and_noise(prediction_type, t, generator):
    x0 = torch.randn(2, 2, 8, 8, generator=generator)
    eps = torch.randn(2, 2, 8, 8, generator=generator)
    alpha_bar = scheduler().alphas_cumprod[t]
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    answer = {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[prediction_type]
    got_x0, got_eps = denoiser(OracleUNet(answer), 1, prediction_type)(a * x0 + s * eps, t)
    torch.testing.assert_close(got_x0, x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got_eps, eps, atol=2e-3, rtol=1e-3)


def test_image_is_bounded_where_the_schedule_ends(generator):
    eps = torch.randn(1, 2, 8, 8, generator=generator)
    model = denoiser(OracleUNet(1.01 * eps), 1)
    assert float(model.alphas_cumprod[999]) < 1e-8
    x0, _ = model(eps, 999)
    assert bool(torch.isfinite(x0).all())
    assert float(torch.linalg.vector_norm(x0, dim=1).max()) <= 4.0 + 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_network_may_run_in_half_precision(dtype, generator):
    unet = build_unet(block_out_channels=(8, 8, 16), cross_attention_dim=WIDTH).eval()
    x_t = torch.randn(1, 2, 16, 16, generator=generator)
    embeds = torch.randn(1, 77, WIDTH, generator=generator)
    with torch.no_grad():
        single = TextDenoiser(unet, scheduler(), embeds, embeds, 2)(x_t, 500)
        half = TextDenoiser(unet.to(dtype), scheduler(), embeds, embeds, 2)
        assert half.alphas_cumprod.dtype == torch.float32
        for got, expected in zip(half(x_t, 500), single, strict=True):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, expected, atol=0.05, rtol=0.05)


def test_small_networks_have_the_stated_size_and_layout():
    unet = build_unet()
    text_encoder = build_text_encoder(1000)
    assert sum(p.numel() for p in unet.parameters()) <= 11_200_000
    total = sum(p.numel() for model in (unet, text_encoder) for p in model.parameters())
    assert 2 * total < 23.5e6
    assert unet.config.cross_attention_dim == text_encoder.config.hidden_size
    assert denoiser(unet, 1).size_multiple == 16
    assert build_scheduler().config.clip_sample is False


def test_builders_are_seeded_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first, second, other = (
        build_unet(block_out_channels=(8, 8, 8), cross_attention_dim=WIDTH, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.conv_in.weight, second.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_bad_arguments_have_their_own_sentence():
    embeds = torch.ones(1, 4, WIDTH)
    with pytest.raises(InputError, match="2 input and 2 output channels"):
        denoiser(CountingUNet(channels=4))
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="guidance_scale"):
            denoiser(guidance_scale=value)
    with pytest.raises(InputError, match="no alphas_cumprod"):
        TextDenoiser(CountingUNet(), SimpleNamespace(), embeds, embeds, 1)
    broken = SimpleNamespace(
        alphas_cumprod=torch.ones(3), config=SimpleNamespace(prediction_type="flow")
    )
    with pytest.raises(InputError, match="got 'flow'"):
        TextDenoiser(CountingUNet(), broken, embeds, embeds, 1)
    with pytest.raises(InputError, match=r"\(batch, tokens, width\)"):
        TextDenoiser(CountingUNet(), scheduler(), torch.ones(4, WIDTH), embeds, 1)
