"""The shipped prior loads, is small, and denoises."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from narrow import present

from ctxrecon.fourier import complex_to_channels
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline, load_prior
from ctxrecon.priors import TextDenoiser


@pytest.fixture(scope="module")
def prior() -> ContextMRIPipeline:
    return load_prior()


def test_it_stays_below_24_megabytes_and_holds_no_pickle() -> None:
    folder = Path(str(files("ctxrecon.checkpoints"))) / "prior"
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) <= 24_000_000
    assert {path.suffix for path in found} <= {".safetensors", ".json", ".txt", ".md"}


@pytest.mark.parametrize(("timestep", "gain_db"), [(100, 7.0), (300, 11.0), (600, 15.0)])
def test_it_removes_noise_from_scans_it_has_not_seen(
    prior: ContextMRIPipeline, timestep: int, gain_db: float
) -> None:
    generator = torch.Generator().manual_seed(2_000_000_011)
    scans = [
        phantom_scan(name, snr=None, generator=generator) for name in ("brain", "knee", "brain")
    ]
    images = complex_to_channels(torch.cat([present(scan.target) for scan in scans]))
    states = prior.encode_prompt([scan.metadata[0].to_prompt() for scan in scans])
    empty = prior.encode_prompt([""] * len(scans))
    alpha_bar = prior.scheduler.alphas_cumprod[timestep]
    noise = torch.randn(images.shape, generator=generator)
    noisy = alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise
    denoiser = TextDenoiser(prior.unet, prior.scheduler, states, empty, 1.0)
    with torch.no_grad():
        denoised, _ = denoiser(noisy, timestep)

    def error(estimate: torch.Tensor) -> torch.Tensor:
        return (estimate - images).square().mean()

    gain = 10 * torch.log10(error(noisy / alpha_bar.sqrt()) / error(denoised))
    assert gain.item() > gain_db
