"""Command-line options of the study and names of its methods."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.arguments import parse, prior_parser

DEFAULT = "default"
"""The pipeline of ``load_prior`` called with k-space, mask and prompt only."""
ZERO_FILLED, CG_SENSE, CEILING = "zero-filled", "CG-SENSE", "ceiling"
L1_WEIGHTS = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Candidate weights of L1-wavelet."""


@dataclass(frozen=True)
class PriorMethod:
    """One way to use a prior.

    Attributes:
        prior: Name of the prior.
        text: :data:`DEFAULT`, or a solver with its options.
        prompted: Use the prompt (γ = 1) or not (γ = 0).
        samples: Number of samples to average; 1 for a deterministic solver.
    """

    prior: str
    text: str
    prompted: bool
    samples: int

    @property
    def title(self) -> str:
        """Name of the image, or of the mean of samples, in rows and tables."""
        return self._base if self.samples == 1 else f"{self._base}, mean of {self.samples}"

    @property
    def sample_title(self) -> str:
        """Name of a single sample in rows and tables."""
        return f"{self._base}, one sample"

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of all rows."""
        return (self.title,) if self.samples == 1 else (self.title, self.sample_title)

    @property
    def _base(self) -> str:
        solver = "" if self.text == DEFAULT else f" {self.text}"
        return f"{self.prior}{solver}, {'prompt' if self.prompted else 'no prompt'}"


def l1_title(weight: float) -> str:
    """Return the name of L1-wavelet with one weight, as in rows."""
    return f"L1-wavelet, λ = {weight:g}"


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = prior_parser("people", description, several=True)
    add, weights = parser.add_argument, list(L1_WEIGHTS)
    add("--data", type=Path, required=True, help="Folder written by ctxrecon prepare images.")
    add("--scans", type=int, default=60, help="Slices; more slices extend fewer ones.")
    add("--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Acceleration factors.")
    add(
        "--methods",
        nargs="+",
        default=[DEFAULT],
        help=f"Methods of the priors: {DEFAULT!r}, or solvers such as dds:eta=0.5.",
    )
    add("--samples", type=int, default=8, help="Samples of stochastic solvers.")
    add("--steps", type=int, default=30, help="Diffusion steps.")
    add("--l1_weights", type=float, nargs="+", default=weights, help="Weights of L1-wavelet.")
    args = parse(parser, argv)
    if args.scans < 1 or args.samples < 2 or args.batch_size < 1:
        parser.error("expected --scans and --batch_size of 1 or more and --samples of 2 or more")
    return args
