"""Scan metadata: spelling, numbers, and impossible values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, canonical_prompt, from_prompt


def test_equal_pathologies_are_brought_together():
    metadata = ScanMetadata(pathologies=("Mass", "Edema", "Mass"))
    assert metadata.pathologies == ("Mass", "Mass", "Edema")
    assert metadata.to_prompt() == "Pathology: 2 Mass, 1 Edema"


def test_known_words_get_their_trained_spelling():
    metadata = ScanMetadata("Knee", contrast="axt2", sequence="turbo  spin echo", sex="female")
    assert metadata == ScanMetadata("knee", contrast="T2", sequence="TurboSpinEcho", sex="F")


def test_numbers_are_written_without_exponent_and_noise():
    for value in (0.0123456, 1e5, 3120.0, np.float32(0.1), np.int64(7)):
        prompt = ScanMetadata(tr=value).to_prompt()
        assert "e" not in prompt
        assert from_prompt(prompt).tr == pytest.approx(float(value), rel=1e-6)
    assert ScanMetadata(tr=3120.0, te=0).to_prompt() == "TR: 3120, TE: 0"
    assert canonical_prompt("TR: 219.639999, TE: 0.30000000000000004") == "TR: 219.64, TE: 0.3"
    assert ScanMetadata(field_strength=2.89362).to_prompt() == "Field strength: 2.89362"
    assert ScanMetadata(tr=219.639999).tr == 219.639999
    assert ScanMetadata(slice=np.int64(3)).slice == 3


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tr": -1}, "TR .* above 0 .* -1"),
        ({"tr": 0}, "repetition time above 0 ms"),
        ({"tr": math.nan}, "TR .* finite .* nan"),
        ({"te": math.inf}, "TE .* finite .* inf"),
        ({"te": -3}, "TE.* -3"),
        ({"ti": -3}, "TI"),
        ({"ti": True}, "TI .* number, got True"),
        ({"tr": "3000"}, "TR .* number, got '3000'"),
        ({"tr": [1]}, r"TR .* number, got \[1\]"),
        ({"flip_angle": 0}, r"angle .* 0"),
        ({"flip_angle": 361}, r"angle .* 361"),
        ({"age": -1}, "age .* -1"),
        ({"field_strength": 0}, "field strength .* 0"),
        ({"tr": 1e-300}, "got 1e-300"),
        ({"tr": 3.15e6}, "plausible are 0.01 to 100000 ms"),
        ({"te": 1e-9}, "plausible are 0.001 to 10000 ms"),
        ({"field_strength": 1e5}, "plausible are 0.001 to 25 T"),
        ({"tr": 30, "te": 33}, "TE below TR.* 33 .* 30"),
        ({"tr": 30, "te": 30}, "expected TE below TR"),
        ({"tr": 15, "te": 30, "sequence": "Qdess"}, "below twice TR"),
        ({"slice": 10**9}, "slice number .* 100000"),
        ({"anatomy": "K\udcf6rper"}, "UTF-8.* 2"),
        ({"pathologies": ("a\0b",)}, r"U\+0000 .* 2"),
        ({"sequence": "x" * 10**6}, "at most 100000 characters, got 1000000"),
        ({"sequence": "a，b"}, "expected sequence without commas"),
        ({"sex": "X"}, "sex .* 'X'"),
        ({"sex": 1}, "sex .* 1"),
        ({"slice": -1}, "slice number .* -1"),
        ({"slice": 1.5}, r"slice .* whole number.* 1\.5"),
        ({"anatomy": ""}, "anatomy .* ''"),
        ({"contrast": 2}, "contrast .* 2"),
        ({"sequence": "a,b"}, "sequence without"),
        ({"pathologies": ("a;b",)}, "pathology without"),
        ({"pathologies": "Mass"}, "string 'Mass'"),
        ({"pathologies": ("Mass",) * 1000}, "999 .* 1000"),
    ],
)
def test_impossible_values_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        ScanMetadata(**fields)
