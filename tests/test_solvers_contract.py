"""What DDNM, DPS, ΠGDM and DiffPIR have in common: batching, callbacks, refusals, names."""

from __future__ import annotations

import pytest
import torch
from gaussian import ALPHAS, GaussianDenoiser

from ctxrecon.errors import InputError
from ctxrecon.operators import CartesianSense
from ctxrecon.solvers import DDNM, DDS, DPS, SOLVERS, DiffPIR, PiGDM, make_solver

NY, NX = 6, 5
TIMESTEPS = [960, 700, 450, 200, 60, 5]
OURS = [DDNM(), DDNM(noise_std=0.2), DPS(zeta=1.0), PiGDM(), DiffPIR()]


def complex_noise(shape, generator):
    return torch.randn(shape, dtype=torch.complex64, generator=generator)


@pytest.fixture
def prior(generator):
    return GaussianDenoiser(
        complex_noise((NY, NX), generator), 0.2 + torch.rand(NY, NX, generator=generator)
    )


@pytest.fixture
def multicoil(generator):
    mask = torch.zeros(1, 1, NY, NX, dtype=torch.bool)
    mask[..., 1:3] = True
    maps = complex_noise((1, 2, NY, NX), generator)
    return CartesianSense(mask, maps / maps.abs().square().sum(1, keepdim=True).sqrt())


@pytest.mark.parametrize("solver", OURS)
def test_same_seeds_batched_or_one_by_one(solver, prior, multicoil, generator):
    y = multicoil(complex_noise((3, NY, NX), generator))
    y *= torch.tensor([1.0, 20.0, 0.1])[:, None, None, None]

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    generators = [seeded(s) for s in range(3)]
    together = solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=generators)
    for index in range(3):
        alone = solver(
            prior, multicoil, y[index : index + 1], timesteps=TIMESTEPS, generator=seeded(index)
        )
        torch.testing.assert_close(alone[0], together[index], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("solver", OURS)
def test_callback_sees_each_step_and_may_replace_the_latents(solver, prior, multicoil, generator):
    y = multicoil(complex_noise((1, NY, NX), generator))
    seen = []

    def watch(step, t, latents, x0):
        seen.append((step, t, tuple(latents.shape), tuple(x0.shape)))
        return torch.zeros_like(latents)

    changed = solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=generator, callback=watch)
    assert [entry[:2] for entry in seen] == list(enumerate(TIMESTEPS))
    assert seen[0][2:] == ((1, 2, NY, NX), (1, NY, NX))
    restarted = solver(
        prior, multicoil, y, timesteps=TIMESTEPS[-1:], latents=torch.zeros(1, 2, NY, NX)
    )
    torch.testing.assert_close(changed, restarted)


@pytest.mark.parametrize("solver", OURS[::2])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(1, 3, NY, NX, dtype=torch.complex64)}, "does not fit the operator's"),
        ({"y": torch.zeros(1, 2, NY, NX)}, "complex64 measurement"),
        ({"timesteps": [10, 20]}, "strictly descending"),
        ({"timesteps": [1000, 20]}, "from 0 to 999"),
        ({"latents": torch.zeros(1, 2, 4, 4)}, "latents of shape"),
        ({"generator": [torch.Generator()] * 2}, "one for each of the 1 samples"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_loop(solver, change, sentence, multicoil):
    called = []

    class Recorder:
        alphas_cumprod, size_multiple = ALPHAS, 1

        def __call__(self, x_t, t):
            called.append(t)
            return x_t, x_t

    call = {"y": torch.zeros(1, 2, NY, NX, dtype=torch.complex64), "timesteps": [10]} | change
    with pytest.raises(InputError, match=sentence):
        solver(Recorder(), multicoil, call.pop("y"), **call)
    assert not called


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (DDNM, {"eta": 1.1}, "eta between 0 and 1"),
        (DDNM, {"noise_std": -0.1}, "a noise_std of 0 or more"),
        (DDNM, {"noise_std": 0.1, "eta": 0.0}, "eta above 0"),
        (DDNM, {"cg_iterations": 0}, "cg_iterations of 1 or more"),
        (DPS, {"zeta": 0.0}, "a positive zeta"),
        (DPS, {"eta": float("nan")}, "eta between 0 and 1"),
        (PiGDM, {"noise_std": float("inf")}, "a noise_std of 0 or more"),
        (PiGDM, {"tolerance": 1.0}, r"a relative tolerance in \[0, 1\)"),
        (DiffPIR, {"lambda_": float("nan")}, "a positive lambda_"),
        (DiffPIR, {"zeta": 1.5}, "zeta between 0 and 1"),
    ],
)
def test_bad_settings(make, options, sentence):
    with pytest.raises(InputError, match=sentence):
        make(**options)


def test_solvers_by_name():
    assert make_solver() == DDS()
    assert make_solver("DiffPIR", noise_std=0.2) == DiffPIR(noise_std=0.2)
    ready = PiGDM()
    assert make_solver(ready) is ready
    assert all(
        name == name.lower() and isinstance(make_solver(name), SOLVERS[name]) for name in SOLVERS
    )
    assert {"dds", "ddnm", "dps", "pigdm", "diffpir"} <= set(SOLVERS)


@pytest.mark.parametrize(
    ("solver", "options", "sentence"),
    [
        ("dsp", {}, "unknown solver 'dsp': expected one of dds, ddnm"),
        ("dps", {"xi": 1}, "the solver dps has no option xi: expected some of zeta, eta"),
        ("dps", {"zeta": -1}, "a positive zeta"),
        (DPS, {}, "expected a solver's name or a solver such as DDS"),
        (3, {}, "got int: give one of dds, ddnm"),
        (DPS(), {"zeta": 1}, "the solver DPS is made already"),
    ],
)
def test_solvers_that_there_are_not(solver, options, sentence):
    with pytest.raises(InputError, match=sentence):
        make_solver(solver, **options)
