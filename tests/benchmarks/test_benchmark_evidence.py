"""The words of the study on the evidence of the data for a prompt."""

from __future__ import annotations

from typing import Any

from benchmarks.metadata import evidence


def _cell(mean: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"roc_area": {"mean": mean, "low": low, "high": high, "n": 16}}


def test_the_verdict_names_what_is_detected_and_what_is_not():
    cells = {
        "real people, uniform1d ×8, wrong contrast": _cell(0.48, 0.19, 0.78),
        "real people, uniform1d ×8, wrong anatomy": _cell(0.95, 0.86, 1.0),
        "knee and brain, uniform1d ×8, wrong contrast": _cell(0.88, 0.80, 0.96),
        "knee and brain, uniform1d ×8, wrong slice": _cell(0.75, 0.65, 0.84),
        "knee and brain, uniform1d ×4, wrong slice": _cell(0.75, None, None),
        "knee, uniform1d ×4, wrong slice": _cell(0.9, 0.8, 1.0),
    }
    mixed, detected, unknown = evidence._verdict(cells).splitlines()
    assert "real people, uniform1d ×8" in mixed
    yes, no = mixed.split("but not")
    assert "detects wrong anatomy (ROC area 0.95)" in yes
    assert "wrong contrast (ROC area 0.48)" in no
    assert "contrast" not in yes
    assert "detects wrong contrast (ROC area 0.88) and wrong slice (ROC area 0.75)" in detected
    assert "not" not in detected
    assert "does not detect wrong slice" in unknown
