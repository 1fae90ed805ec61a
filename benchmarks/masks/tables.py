"""Tables of the study (samplers and networks) and its command-line options."""

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
# At the learning rate of the other tables, single steps would settle the split over the echoes.
_AIM = ("--aim", "task", "--sampler_learning_rate", "0.01")


def _task(accelerations: tuple[float, ...], times: int = 1) -> tuple[Entry, ...]:
    """Return entries for the T2* map, with equal and with learned accelerations of the echoes."""
    return tuple(
        Entry(f"{title} accelerations", sampler, _HRU, accelerations, _AIM, times)
        for title, sampler in (("equal", _EACH), ("learned", f"{_EACH}:learn_split=true"))
    )


def _ratios(lines: bool) -> tuple[Entry, ...]:
    """Return one pattern generator, LOUPE for each ratio, and fixed masks."""
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
    """Parse the options of the study."""
    parser = study_parser("masks", description)
    add, names = parser.add_argument, tuple(TABLES)
    add("--tables", nargs="+", choices=names, default=list(names), help="Tables (default: all).")
    add("--entries", nargs="+", help="Titles of entries (default: all of the tables).")
    add("--bank", type=Path, required=True, help="Bank of anatomies to train with.")
    add("--label_volumes", type=Path, nargs="*", default=[], help="Label volumes of test people.")
    add("--runs", type=Path, default=Path("runs/sampling"), help="Folder of the trainings.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--resolution", type=int, default=96, help="Matrix size.")
    add("--sweep_resolution", type=int, default=64, help="Matrix size of the larger tables.")
    add("--scans", type=int, default=600, help="Training scans.")
    add("--steps", type=int, default=1500, help="Training steps.")
    add("--learning_rate", type=float, default=1e-3, help="Learning rate of the networks.")
    add("--sampler_learning_rate", type=float, default=5e-2, help="Learning rate of the samplers.")
    add("--mixed_precision", default="no", help="Mixed precision of accelerate.")
    add("--test_scans", type=int, default=48, help="Test scans.")
    add("--train_only", action="store_true", help="Train without testing.")
    add("--test_only", action="store_true", help="Test completed trainings only.")
    add("--seed", type=int, default=0, help="Random seed.")
    add("--seeds", type=int, nargs="+", help="Random seeds of the trainings (default: --seed).")
    return parse(parser, argv)
