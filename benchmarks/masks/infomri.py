"""Analogues of the sampling tables and figures of InfoMRI.

Magnitude images are scanned by one coil, so that k-space is conjugate symmetric, as where the paper
counts redundant samples. A fully sampled center is used only by methods that need one to start
from. All models are trained by InfoMRI's likelihood with the same U-Net, which predicts mean and
log-variance, so that only the masks differ.
"""

from __future__ import annotations

from typing import Any

from benchmarks.masks.entries import Entry, Table

_RATIOS = (0.0625, 0.125, 0.1875, 0.25)
_TESTED = tuple(1 / ratio for ratio in _RATIOS)
_SERVED = f"ratios=[{_RATIOS[0]},{_RATIOS[-1]}]"
_EACH = "ratios=[{ratio},{ratio}]"
_BACKBONE_RATIOS = (0.1, 0.2, 0.3)
_BACKBONE_TESTED = tuple(1 / ratio for ratio in _BACKBONE_RATIOS)
_BACKBONE_SERVED = f"ratios=[{_BACKBONE_RATIOS[0]},{_BACKBONE_RATIOS[-1]}]"
_PUBLISHED = "embedding=1:width=16:center_fraction=0.0"
_LINES, _POINTS = "lines=true", "lines=false"

_UNET = "unet:width=16:depth=3:predict_std=joint"
_ISTA = "ista_net:width=16:phases=5"
_PNP = "pnp:width=16:depth=2:iterations=4:cg_iterations=4"
_NLL = ("--loss", "gaussian")
_HEAD = (*_NLL, "--predict_std")
_MSE = ("--loss", "mse")

_ONE: dict[str, Any] = {
    "contrasts": "one",
    "options": ("--magnitude_images", "--lr_scheduler", "linear", "--lr_warmup_steps", "50"),
    "sweep": True,
    "num_coils": 1,
    "batch_size": 8,
    "intervals": True,
}
_INFO = "InfoMRI"


def _fixed(title: str, mask: str, center: float, published: str = "") -> Entry:
    sampler = f"fixed:mask={mask}:{_SERVED}:center_fraction={center}"
    return Entry(title, sampler, _UNET, _TESTED, _NLL, published=published)


def _generator(kind: str, served: str = _SERVED) -> str:
    return f"pattern_generator:{served}:{kind}:{_PUBLISHED}"


def _loupe(kind: str, published: str = "", tested: tuple[float, ...] = _TESTED) -> Entry:
    sampler = f"loupe:{kind}:center_fraction=0.0"
    return Entry("LOUPE for each ratio", sampler, _UNET, tested, _NLL, published=published)


def _sequential(kind: str, center: float, published: str) -> Entry:
    sampler = f"sequential:{kind}:stages=4:center_fraction={center}"
    return Entry("SeqMRI", sampler, _UNET, (4.0,), _NLL, stages=True, published=published)


def _amortized(name: str, network: str, loss: tuple[str, str]) -> tuple[Entry, ...]:
    """Return one generator for all ratios, the same trained longer, and one for each ratio."""
    served, each = _generator(_POINTS), _generator(_POINTS, _EACH)
    title = f"{name}, one for all ratios"
    return (
        Entry(title, served, network, _TESTED, loss),
        Entry(f"{title}, 4 times the steps", served, network, _TESTED, loss, times=4),
        Entry(f"{name}, one for each ratio", each, network, _TESTED, loss),
    )


_POINTS_ENTRIES = (
    Entry(_INFO, _generator(_POINTS), _UNET, _TESTED, _NLL),
    _fixed("uniform random", "uniform2d", 0.0, "−4.22 dB, 38.97 %"),
    _fixed("variable density", "variable_density2d", 0.0625, "−1.72 dB, 26.45 %"),
    _fixed("spectrum based", "spectrum2d", 0.0, "−2.10 dB, 30.17 %"),
    _loupe(_POINTS, "0.03 dB, −0.02 %"),
    _sequential(_POINTS, 0.0625, "−1.48 dB, 17.66 %"),
)
_CENTERED = "uniform random with a centre"
_LINES_ENTRIES = (
    Entry(_INFO, _generator(_LINES), _UNET, _TESTED, _NLL),
    _fixed("uniform random", "uniform1d", 0.0, "−3.96 dB, 32.64 %"),
    _fixed(_CENTERED, "uniform1d", 0.04),
    _fixed("equispaced", "equispaced1d", 0.04, "−3.06 dB, 26.06 %"),
    _loupe(_LINES, "−0.89 dB, 14.22 %"),
    _sequential(_LINES, 0.04, "−3.06 dB, 25.61 %"),
    Entry(
        "PGMRI", "greedy:center_fraction=0.04", "", (4.0,),
        tested=_TESTED, after=_CENTERED, published="−4.20 dB, 28.96 %",
    ),
)  # fmt: skip
_RADIAL = f"fixed:mask=radial2d:{_BACKBONE_SERVED}:center_fraction=0.0"
_INFO_POINTS = _generator(_POINTS, _BACKBONE_SERVED)
_UNROLL = "InfoMRI-Unroll"
_BACKBONES = (
    Entry("PnP, radial", _RADIAL, _PNP, _BACKBONE_TESTED, _HEAD),
    Entry("ISTA-Net⁺, radial", _RADIAL, _ISTA, _BACKBONE_TESTED, _MSE),
    _loupe(_POINTS, tested=_BACKBONE_TESTED),
    Entry("InfoMRI-PnP", _INFO_POINTS, _PNP, _BACKBONE_TESTED, _HEAD),
    Entry("InfoMRI-UNet", _INFO_POINTS, _UNET, _BACKBONE_TESTED, _NLL),
    Entry(_UNROLL, _INFO_POINTS, f"{_ISTA}:predict_std=joint", _BACKBONE_TESTED, _NLL),
    Entry(f"{_UNROLL}-MSE", _INFO_POINTS, _ISTA, _BACKBONE_TESTED, _MSE),
)

_AMORTIZED = _amortized(_INFO, _UNET, _NLL)
_AMORTIZED_UNROLLED = _amortized(f"{_UNROLL}-MSE", _ISTA, _MSE)

INFOMRI = {
    "infomri2d": Table("InfoMRI, points: masks under one U-Net", _POINTS_ENTRIES, _INFO, **_ONE),
    "infomri1d": Table("InfoMRI, lines: masks under one U-Net", _LINES_ENTRIES, _INFO, **_ONE),
    "amortized": Table(
        "One pattern generator for all ratios, and one for each",
        _AMORTIZED, _AMORTIZED[-1].title, **_ONE,
    ),
    "amortized_unrolled": Table(
        "One unrolled network for all ratios, and one for each",
        _AMORTIZED_UNROLLED, _AMORTIZED_UNROLLED[-1].title, **_ONE,
    ),
    "infomri_backbones": Table("InfoMRI with other networks", _BACKBONES, _UNROLL, **_ONE),
}  # fmt: skip
"""Tables by name: Figure 3 with Tables II and VI (points, lines), Figure 5 twice, and Table I."""
