from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_fastmri_row
from ctxrecon.phantom.protocols import (
    draw_protocol,
    pathology_counts,
    protocol_counts,
)

SUMMARY = files("ctxrecon.phantom").joinpath("protocols.json")


def test_every_protocol_is_complete_and_physical():
    counts = protocol_counts()
    assert sum(counts.values()) == 6405 + 1394
    for protocol in counts:
        assert None not in (protocol.tr, protocol.te, protocol.ti, protocol.flip_angle)
        assert present(protocol.te) < present(protocol.tr)
        assert protocol.sequence in {"TurboSpinEcho", "Flash"}
        assert protocol.field_strength in {1.49, 2.89}
        assert protocol.pathologies == ()
        assert protocol.slice is None
    assert len(SUMMARY.read_bytes()) < 60_000


def test_a_seed_decides_the_draw():
    def draw(seed: int) -> list[ScanMetadata]:
        generator = torch.Generator().manual_seed(seed)
        return [draw_protocol(generator) for _ in range(20)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_draws_follow_the_real_frequencies(generator):
    number = 4000
    drawn = Counter(draw_protocol(generator) for _ in range(number))
    counts = protocol_counts()
    total = sum(counts.values())
    for protocol, count in counts.items():
        share = count / total
        spread = (share * (1 - share) / number) ** 0.5
        # five standard deviations, plus one draw for the rarest
        assert abs(drawn[protocol] / number - share) < 5 * spread + 1 / number


def test_anatomy_and_contrast_restrict_the_draw(generator):
    for _ in range(50):
        assert draw_protocol(generator, "knee").anatomy == "knee"
        flair = draw_protocol(generator, contrast="T2FLAIR")
        assert (flair.anatomy, flair.contrast, flair.ti) == ("brain", "FLAIR", 2500)
        assert draw_protocol(generator, "Brain", "AXT1POST").contrast == "T1POST"


def test_findings_are_those_of_fastmri_plus():
    knee = pathology_counts("knee")
    assert next(iter(knee)) == "Meniscus Tear"
    assert len(knee) == 22
    assert "Edema" in pathology_counts("brain")


def test_what_no_real_scan_has_is_refused(generator):
    with pytest.raises(InputError, match=r"'knee' .* 'T2'"):
        draw_protocol(generator, "knee", "T2")
    with pytest.raises(InputError, match=r"'elbow' .* None"):
        draw_protocol(generator, "elbow")
    with pytest.raises(InputError, match=r"findings .*'spine'"):
        pathology_counts("spine")


def test_the_summary_holds_the_real_joint_distribution(shared_data):
    real: Counter[ScanMetadata] = Counter()
    for anatomy in ("knee", "brain"):
        with (shared_data / "fastmri_metadata" / f"{anatomy}_multicoil.csv").open() as file:
            for row in csv.DictReader(file):
                strength = str(round(float(row["systemFieldStrength_T"]), 2))
                real[from_fastmri_row(row | {"systemFieldStrength_T": strength})] += 1
    assert dict(real) == protocol_counts()


def test_the_script_makes_the_shipped_summary(shared_data, tmp_path):
    root = Path(__file__).resolve().parents[2]
    output = tmp_path / "protocols.json"
    tables = {
        "--headers": ("fastmri_metadata", "{}_multicoil.csv"),
        "--findings": ("fastmri_plus", "{}.csv"),
    }
    arguments = ["--output", str(output)]
    for option, (folder, name) in tables.items():
        paths = [shared_data / folder / name.format(anatomy) for anatomy in ("knee", "brain")]
        arguments += [option, *map(str, paths)]
    script = root / "training" / "summarize_protocols.py"
    subprocess.run([sys.executable, str(script), *arguments], check=True, timeout=120)
    assert json.loads(output.read_text()) == json.loads(SUMMARY.read_text(encoding="utf-8"))
