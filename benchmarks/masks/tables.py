"""The tables of the study: which samplers with which networks; and its options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.masks.entries import Entry, Table, table_of
from benchmarks.masks.infomri import INFOMRI

__all__ = ["TABLES", "Entry", "Table", "parse_args", "table_of"]

_HRU, _UNET = "hru_net:width=16:blocks=3", "unet_s:width=16"
_EACH, _SHARED = "per_contrast", "per_contrast:shared=true"
_RATIOS = (0.0625, 0.125, 0.1875, 0.25)
_INFO = "unet:width=24:depth=3"


_GAUSSIAN = ("--loss", "gaussian", "--predict_std")
# At the rate of the other tables single steps would settle the shares of the echoes.
_AIM = ("--aim", "task", "--sampler_learning_rate", "0.01")


def _task(accelerations: tuple[float, ...], times: int = 1) -> tuple[Entry, ...]:
    """Masks and network for the T2* map, with equal and with learned shares of the time."""
    return tuple(
        Entry(f"{title} accelerations", sampler, _HRU, accelerations, _AIM, times)
        for title, sampler in (("equal", _EACH), ("learned", f"{_EACH}:learn_split=true"))
    )


def _ratios(lines: bool) -> tuple[Entry, ...]:
    """One generator of patterns, LOUPE for each ratio, and masks that are not learned."""
    kind = f"lines={str(lines).lower()}"
    served = f"ratios=[{_RATIOS[0]},{_RATIOS[-1]}]"
    accelerations = tuple(1 / ratio for ratio in _RATIOS)
    fixed: tuple[str, ...] = ("uniform1d", "gaussian1d", "equispaced1d")
    if not lines:
        fixed = ("variable_density2d", "poisson_disk2d")
    generator = f"pattern_generator:{served}:{kind}"
    return (
        Entry("pattern generator", generator, _INFO, accelerations),
        Entry("pattern generator, 4 times the steps", generator, _INFO, accelerations, times=4),
        Entry("LOUPE for each ratio", f"loupe:{kind}", _INFO, accelerations),
        *(Entry(mask, f"fixed:mask={mask}:{served}", _INFO, accelerations) for mask in fixed),
    )


_NETWORKS = (
    Entry("RM-S / U-Net-S", "fixed:mask=uniform1d", _UNET),
    Entry("LM-S / U-Net-S", _SHARED, _UNET),
    Entry("LM-I / U-Net-I", _EACH, "unet_i:width=16"),
    Entry("LM-I / U-Net-S", _EACH, _UNET),
    Entry("LM-I / GRU-U-Net", _EACH, "gru_unet:width=16"),
    Entry("LM-I / RU-Net", _EACH, "ru_net:width=16:blocks=3"),
    Entry("LM-I / HRU-Net", _EACH, _HRU),
)
_ONE: dict[str, Any] = {"contrasts": "one", "sweep": True, "num_coils": 1, "batch_size": 8}
_NO_CENTER = ("--center_fraction", "0.03125", *_GAUSSIAN)

TABLES = {
    "networks": Table("Masks and networks, five echoes of a head", _NETWORKS, _NETWORKS[0].title),
    "knees": Table(
        "Masks and networks, PD and PDFS of a knee",
        _NETWORKS,
        _NETWORKS[0].title,
        contrasts="pd_pair",
        options=("--anatomy", "knee", "--center_fraction", "0.0625"),
    ),
    "task": Table("T2* maps", _task((2.0, 4.0)), "equal accelerations"),
    "task_longer": Table(
        "T2* maps, trained twice as long", _task((4.0,), times=2), "equal accelerations"
    ),
    "accelerations": Table(
        "Masks and networks at several accelerations",
        tuple(
            Entry(title, sampler, network, (2.0, 3.0, 4.0, 5.0, 6.0))
            for title, sampler, network in (
                ("RM-S / U-Net-S", "fixed:mask=uniform1d", _UNET),
                ("LM-I / U-Net-S", _EACH, _UNET),
                ("LM-I / HRU-Net", _EACH, _HRU),
            )
        ),
        "RM-S / U-Net-S",
        sweep=True,
    ),
    "blocks": Table(
        "Blocks of the recurrent network",
        tuple(
            Entry(f"HRU-Net, {n} block{'s' * (n > 1)}", _EACH, f"hru_net:width=16:blocks={n}")
            for n in (1, 2, 3)
        ),
        "HRU-Net, 1 block",
        sweep=True,
    ),
    "ratios1d": Table(
        "One sampler for every ratio, lines", _ratios(True), "LOUPE for each ratio",
        options=_NO_CENTER, **_ONE,
    ),
    "ratios2d": Table(
        "One sampler for every ratio, points", _ratios(False), "LOUPE for each ratio",
        options=("--center_fraction", "0.08", *_GAUSSIAN), **_ONE,
    ),
    "backbones": Table(
        "Backbones under learned and fixed masks",
        tuple(
            Entry(f"{name}, {mask}", sampler, network, (4.0, 8.0))
            for mask, sampler in (("LOUPE", "loupe"), ("uniform1d", "fixed:mask=uniform1d"),
                                  ("gaussian1d", "fixed:mask=gaussian1d"))
            for name, network in (("U-Net", "unet:width=16"),
                                  ("unrolled", "unrolled:width=16:iterations=3"))
        ),
        "U-Net, uniform1d",
        contrasts="one", options=("--center_fraction", "0.04"), num_coils=4, batch_size=4,
        prior=True,
    ),
    **INFOMRI,
}  # fmt: skip


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The options of the study."""
    parser = study_parser("masks", description)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--entries", nargs="+", help="titles; by default all of the tables")
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/sampling"))
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--sweep_resolution", type=int, default=64)
    parser.add_argument("--scans", type=int, default=600, help="to train with")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--sampler_learning_rate", type=float, default=5e-2)
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--test_scans", type=int, default=48)
    parser.add_argument("--train_only", action="store_true", help="test another time")
    parser.add_argument("--test_only", action="store_true", help="of what has been trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="of the trainings, tested on the same scans; --seed"
    )
    return parse(parser, argv)
