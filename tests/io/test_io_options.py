"""Options of reading that do not fit the file."""

from __future__ import annotations

import numpy as np
import pytest
from test_io_ismrmrd import phantom

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan

K = phantom()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"slices": 3}, "no slice 3"),
        ({"slices": []}, "selects none"),
        ({"slices": slice(5, 9)}, "selects none"),
        ({"contrast": 1}, r"have no contrasts.*--contrast"),
        ({"phase": 1}, r"leave phase \(--cardiac-phase\) out"),
        ({"crop_readout": True}, r"oversampling.*--crop-readout"),
        ({"coil_maps": "maps.txt"}, "coil maps as"),
    ],
)
def test_wrong_options(tmp_path, options, sentence):
    np.save(tmp_path / "k.npy", K)
    with pytest.raises(InputError, match=sentence):
        read_scan(tmp_path / "k.npy", **options)


K = phantom()


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (1.5, "slices as a whole"),
        ("0", "slices as a whole"),
        (True, "slices as a whole"),
        ([0, None], "slices as a whole"),
        (slice(0.5, None), "whole numbers"),
        (slice(None, None, 0), "whole numbers"),
    ],
)
def test_slices_that_are_no_numbers(tmp_path, choice, sentence):
    np.save(tmp_path / "k.npy", K)
    with pytest.raises(InputError, match=sentence):
        read_scan(tmp_path / "k.npy", slices=choice)
