"""Options of the study, and the names of its methods."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.arguments import parse, prior_parser

DEFAULT = "default"
"""What ``load_prior`` gives does when nothing is said but k-space, mask and prompt."""
ZERO_FILLED, CG_SENSE, CEILING = "zero-filled", "CG-SENSE", "ceiling"
L1_WEIGHTS = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Weights of L1-wavelet that are tried."""


@dataclass(frozen=True)
class PriorMethod:
    """One way to use a prior.

    Attributes:
        prior: its name.
        text: :data:`DEFAULT`, or a solver with its options.
        prompted: whether γ is 1, not 0.
        samples: of which the mean is taken; 1 for a solver that draws nothing.
    """

    prior: str
    text: str
    prompted: bool
    samples: int

    @property
    def title(self) -> str:
        """As in rows and tables, of the image or of the mean."""
        return self._base if self.samples == 1 else f"{self._base}, mean of {self.samples}"

    @property
    def sample_title(self) -> str:
        """As in rows and tables, of one sample."""
        return f"{self._base}, one sample"

    @property
    def titles(self) -> tuple[str, ...]:
        """Of all rows."""
        return (self.title,) if self.samples == 1 else (self.title, self.sample_title)

    @property
    def _base(self) -> str:
        solver = "" if self.text == DEFAULT else f" {self.text}"
        return f"{self.prior}{solver}, {'prompt' if self.prompted else 'no prompt'}"


def l1_title(weight: float) -> str:
    """L1-wavelet with one weight, as in rows."""
    return f"L1-wavelet, λ = {weight:g}"


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The options of the study."""
    parser = prior_parser("people", description, several=True)
    parser.add_argument("--data", type=Path, required=True, help="set of ctxrecon prepare images")
    parser.add_argument("--scans", type=int, default=60, help="slices; those of fewer come first")
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[DEFAULT],
        help=f"of the priors: {DEFAULT!r}, or solvers such as dds:eta=0.5",
    )
    parser.add_argument("--samples", type=int, default=8, help="of solvers that draw")
    parser.add_argument("--steps", type=int, default=30, help="diffusion steps")
    parser.add_argument("--l1_weights", type=float, nargs="+", default=list(L1_WEIGHTS))
    args = parse(parser, argv)
    if args.scans < 1 or args.samples < 2 or args.batch_size < 1:
        parser.error("expected --scans and --batch_size of 1 or more and --samples of 2 or more")
    return args
