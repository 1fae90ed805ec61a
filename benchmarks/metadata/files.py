"""CSV files shared by the experiments: names, columns and settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.arguments import named_priors
from benchmarks.common.held_out import NUM_COILS, SNR
from benchmarks.metadata.evidence import EVIDENCE_COLUMNS
from benchmarks.metadata.measured import COLUMNS
from benchmarks.metadata.options import stem
from benchmarks.metadata.text_to_image import IMAGE_COLUMNS
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row
from ctxrecon.files import read_json, write_json

RECONSTRUCTIONS, EVIDENCE, IMAGES = "reconstructions", "evidence", "text_to_image"
"""Kinds of rows; the last two belong to the experiments of the same name."""
FILE_COLUMNS = {
    RECONSTRUCTIONS: COLUMNS,
    EVIDENCE: EVIDENCE_COLUMNS,
    IMAGES: IMAGE_COLUMNS,
}
Rows = dict[str, list[Row]]
"""Rows by kind."""
_SUFFIXES = {RECONSTRUCTIONS: "", EVIDENCE: "_evidence", IMAGES: "_images"}


def other_priors(args: argparse.Namespace) -> list[str]:
    """Return the names of all priors after the first, which is the subject of the study."""
    return list(named_priors(args.prior))[1:]


def check_others(folder: Path, args: argparse.Namespace, weights: Mapping[str, str]) -> None:
    """Store the fingerprints of the other priors, or validate them against stored ones.

    Args:
        folder: Folder of the rows.
        args: Options of the study.
        weights: Fingerprint of each of the other priors by name.

    Raises:
        InputError: If a stored name belongs to other weights.
    """
    path = _others_file(folder, args)
    before = read_others(folder, args)
    for name, found in weights.items():
        if before.get(name, found) != found:
            raise InputError(
                f"{path} holds the prior {name} with weights {before[name]}, this one has {found}: "
                "use another name"
            )
    if weights:
        write_json(path, {**before, **weights})


def read_others(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the stored fingerprints of all other priors by name."""
    path = _others_file(folder, args)
    if not path.is_file():
        return {}
    return dict(read_json(path, "the other priors of a measurement", "write to another folder"))


def _others_file(folder: Path, args: argparse.Namespace) -> Path:
    return folder / f"{stem(args)}.priors.json"


def kinds_of(args: argparse.Namespace) -> list[str]:
    """Return the kinds of rows that the chosen experiments need."""
    own = [kind for kind in (EVIDENCE, IMAGES) if kind in args.experiments]
    return [RECONSTRUCTIONS] * (len(own) < len(set(args.experiments))) + own


def row_files(folder: Path, args: argparse.Namespace) -> dict[str, Path]:
    """Return the file of each kind of rows that is needed."""
    return {kind: folder / f"{stem(args)}{_SUFFIXES[kind]}.csv" for kind in kinds_of(args)}


def settings_of(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the settings that rows of each kind must share, except for prior and metric."""

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(args, name) for name in names}

    scans = {
        "label_volumes": [path.name for path in args.label_volumes],
        "coils": NUM_COILS,
        "snr": SNR,
    }
    common = given("resolution", "steps", "dtype", "seed")
    kinds = {
        RECONSTRUCTIONS: scans
        | given("resolution", "solver", "timesteps", "steps", "dtype")
        | given("samples", "true_maps", "seed"),
        EVIDENCE: scans | common | given("true_maps", "levels"),
        IMAGES: common | given("images"),
    }
    return {kind: kinds[kind] for kind in kinds_of(args)}
