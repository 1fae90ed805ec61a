"""Properties common to all solvers: batching, callbacks, validation, names."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import (
    ALPHAS,
    Untouched,
    complex_noise,
    random_prior,
    seeded,
    two_lines,
)

from ctxrecon.errors import InputError
from ctxrecon.operators import CartesianSense
from ctxrecon.solvers import (
    DAPS,
    DDNM,
    DDS,
    DDS3D,
    DPS,
    SOLVERS,
    DiffPIR,
    PiGDM,
    PnPADMM,
    PnPHQS,
    PosteriorDDS,
    REDDiff,
    ScoreMRI,
    make_solver,
    parse_solver,
)

NY, NX = 6, 5
TIMESTEPS = [960, 700, 450, 200, 60, 5]
GUIDED = [DDS(), DDNM(), DDNM(noise_std=0.2), DPS(zeta=1.0), PiGDM(), DiffPIR()]
ANNEALED = [
    REDDiff(),
    DAPS(ode_steps=2),
    DAPS(ode_steps=2, langevin_steps=3),
    PnPHQS(),
    PnPADMM(),
    ScoreMRI(),
]
EVERY = [*GUIDED, *ANNEALED, PosteriorDDS(), DDS3D(num_slices=1)]


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def multicoil(generator):
    return two_lines((NY, NX), generator)


@pytest.mark.parametrize("solver", EVERY, ids=repr)
def test_same_seeds_batched_or_one_by_one(solver, prior, multicoil, generator):
    guided = solver in GUIDED
    y = multicoil(complex_noise((3, NY, NX), generator))
    # Step sizes must be each sample's own.
    y *= torch.tensor([1.0, 20.0, 0.1] if guided else [1.0, 3.0, 1.0])[:, None, None, None]
    together = solver(
        prior, multicoil, y, timesteps=TIMESTEPS, generator=[seeded(s) for s in range(3)]
    )
    assert together.shape == (3, NY, NX)
    assert together.dtype == torch.complex64
    atol, rtol = (2e-4, 2e-4) if guided else (1e-3, 1e-4)
    for index in range(3):
        alone = solver(
            prior, multicoil, y[index : index + 1], timesteps=TIMESTEPS, generator=seeded(index)
        )
        torch.testing.assert_close(alone[0], together[index], atol=atol, rtol=rtol)


@pytest.mark.parametrize("solver", EVERY, ids=repr)
def test_callback_sees_each_step_and_may_change_the_latents(solver, prior, multicoil, generator):
    y = multicoil(complex_noise((1, NY, NX), generator))
    kept = []

    def watch(step, t, latents, image):
        kept.append((step, t, latents.clone(), image, image.clone()))

    with torch.no_grad():
        result = solver(
            prior, multicoil, y, timesteps=TIMESTEPS, generator=seeded(1), callback=watch
        )
        other = solver(
            prior,
            multicoil,
            y,
            timesteps=TIMESTEPS,
            generator=seeded(1),
            callback=lambda step, t, latents, image: latents + 1.0,
        )
    assert [entry[:2] for entry in kept] == list(enumerate(TIMESTEPS))
    assert all(entry[2].shape == (1, 2, NY, NX) for entry in kept)
    assert all(torch.equal(entry[3], entry[4]) for entry in kept)  # not changed afterwards
    torch.testing.assert_close(kept[-1][3], result)
    assert float((other - result).abs().max()) > 1e-4


@pytest.mark.parametrize("solver", GUIDED, ids=repr)
def test_latents_that_a_callback_gives_are_gone_on_from(solver, prior, multicoil, generator):
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


@pytest.mark.parametrize("solver", EVERY, ids=repr)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(1, 3, NY, NX, dtype=torch.complex64)}, "does not fit"),
        ({"y": torch.zeros(1, 2, NY, NX)}, "complex64 measurement"),
        ({"timesteps": [10, 20]}, "strictly descending"),
        ({"timesteps": [1000, 20]}, "from 0 to 999"),
        ({"latents": torch.zeros(1, 2, 4, 4)}, "latents of shape"),
        ({"generator": [torch.Generator()] * 2}, "1 samples"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_loop(solver, change, sentence, multicoil):
    call = {"y": torch.zeros(1, 2, NY, NX, dtype=torch.complex64), "timesteps": [10]} | change
    with pytest.raises(InputError, match=sentence):
        solver(Untouched(), multicoil, call.pop("y"), **call)


@pytest.mark.parametrize("solver", ANNEALED, ids=repr)
def test_schedulers_that_do_not_fit(solver, multicoil):
    y = torch.zeros(1, 2, NY, NX, dtype=torch.complex64)
    zero_snr, rising = ALPHAS.clone(), ALPHAS.clone()
    zero_snr[999] = 0.0
    rising[500] = rising[100] / 2 + rising[50] / 2
    with pytest.raises(InputError, match=r"got 0\.0 at timestep 999"):
        solver(Untouched(zero_snr), multicoil, y, timesteps=[999, 100])
    with pytest.raises(InputError, match="noise that falls"):
        solver(Untouched(rising), multicoil, y, timesteps=[500, 100])


def test_operators_that_do_not_fit(generator):
    maps = 2 * torch.ones(1, 1, NY, NX, dtype=torch.complex64)
    operator = CartesianSense(torch.ones(1, 1, NY, NX, dtype=torch.bool), maps)
    y = torch.zeros(1, 1, NY, NX, dtype=torch.complex64)
    for solver, remedy in [
        (DAPS(langevin_steps=5), "langevin_steps=None"),
        (ScoreMRI(), "lower data_step"),
    ]:
        with pytest.raises(InputError, match=f"got 4: .*{remedy}"):
            solver(Untouched(), operator, y, timesteps=[10])
    with pytest.raises(InputError, match=r"3 slices.* 4"):
        DDS3D(num_slices=3)(Untouched(), operator, y.expand(4, -1, -1, -1), timesteps=[10])


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (PosteriorDDS, {"noise_std": 0.0}, "positive noise_std"),
        (PosteriorDDS, {"eta": 1.1}, "eta between 0 and 1"),
        (PosteriorDDS, {"cg_iterations": 0}, "cg_iterations"),
        (DDNM, {"eta": 1.1}, "eta between 0 and 1"),
        (DDNM, {"noise_std": -0.1}, "noise_std"),
        (DDNM, {"noise_std": 0.1, "eta": 0.0}, "eta above 0"),
        (DDNM, {"cg_iterations": 0}, "cg_iterations"),
        (DPS, {"zeta": 0.0}, "a positive zeta"),
        (DPS, {"eta": float("nan")}, "eta between 0 and 1"),
        (PiGDM, {"noise_std": float("inf")}, "noise_std"),
        (PiGDM, {"tolerance": 1.0}, r"a relative tolerance in \[0, 1\)"),
        (DiffPIR, {"lambda_": float("nan")}, "a positive lambda_"),
        (DiffPIR, {"zeta": 1.5}, "zeta between 0 and 1"),
        (REDDiff, {"prior_weight": 0.0}, "positive prior_weight"),
        (REDDiff, {"learning_rate": math.inf}, "positive learning_rate"),
        (REDDiff, {"cg_iterations": 0}, "cg_iterations"),
        (DAPS, {"noise_std": 0.0}, "positive noise_std"),
        (DAPS, {"prior_std": math.nan}, "positive prior_std"),
        (DAPS, {"ode_steps": 1.5}, "ode_steps"),
        (DAPS, {"langevin_steps": 0}, "langevin_steps"),
        (DAPS, {"langevin_step_size": 1.0}, "langevin_step_size"),
        (PnPHQS, {"noise_std": -1.0}, "positive noise_std"),
        (PnPADMM, {"largest_denoiser_std": 0.0}, "positive largest_denoiser_std"),
        (ScoreMRI, {"snr": 0.0}, "positive snr"),
        (ScoreMRI, {"corrector_steps": -1}, "corrector_steps"),
        (ScoreMRI, {"data_step": math.nan}, "positive data_step"),
        (DDS3D, {"eta": 2.0}, "eta between 0 and 1"),
        (DDS3D, {"tv_weight": -0.1}, "positive tv_weight"),
        (DDS3D, {"penalty": 0.0}, "positive penalty"),
        (DDS3D, {"num_slices": 0}, "num_slices"),
        (DDS3D, {"admm_iterations": math.inf}, "admm_iterations"),
    ],
)
def test_bad_settings(make, options, sentence):
    with pytest.raises(InputError, match=sentence):
        make(**options)


def test_solvers_by_name():
    assert make_solver("dds") == DDS()
    assert make_solver("DiffPIR", noise_std=0.2) == DiffPIR(noise_std=0.2)
    ready = PiGDM()
    assert make_solver(ready) is ready
    assert all(
        name == name.lower() and isinstance(make_solver(name), SOLVERS[name]) for name in SOLVERS
    )
    assert {type(solver) for solver in EVERY} == set(SOLVERS.values())
    assert parse_solver("dds:data_weight=50:eta=0.5") == DDS(data_weight=50, eta=0.5)
    assert parse_solver("pnp_admm") == PnPADMM()
    with pytest.raises(InputError, match="dds:option"):
        parse_solver("dds:eta")


@pytest.mark.parametrize(
    ("solver", "options", "sentence"),
    [
        ("dsp", {}, "'dsp'.* ddnm"),
        ("dps", {"xi": 1}, "dps .* xi: .* zeta, eta"),
        ("dps", {"zeta": -1}, "a positive zeta"),
        (DPS, {}, "solver's name"),
        (3, {}, "got int"),
        (DPS(), {"zeta": 1}, "made already"),
    ],
)
def test_solvers_that_there_are_not(solver, options, sentence):
    with pytest.raises(InputError, match=sentence):
        make_solver(solver, **options)
