"""Native support of half precision."""

from __future__ import annotations

import pytest
import torch

import ctxrecon
from ctxrecon import precision
from ctxrecon.errors import InputError
from ctxrecon.precision import is_native, placed

CPU = torch.device("cpu")
OLD = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False}


@pytest.fixture
def processor(monkeypatch):
    """Pretend to have a processor with these capabilities."""

    def pretend(**capabilities: object) -> None:
        monkeypatch.setattr(precision, "_capabilities", lambda: capabilities)

    return pretend


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_instructions_make_a_type_native(processor, name):
    processor(**OLD)
    assert is_native(torch.float32, CPU)
    assert not is_native(torch.bfloat16, CPU)
    processor(**{**OLD, name: True})
    assert is_native(torch.bfloat16, CPU)
    assert not is_native(torch.float16, CPU)


@pytest.mark.parametrize("load", [ctxrecon.load, lambda **how: ctxrecon.load("network", **how)])
def test_an_emulated_type_is_warned_of(processor, load, caplog):
    processor(**OLD)
    assert load(dtype="bfloat16").dtype == torch.bfloat16
    assert "no instructions for bfloat16" in caplog.text
    assert "use float32" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "known"),
    [
        ("float32", OLD),
        ("bfloat16", {**OLD, "amx_bf16": True}),
        ("bfloat16", {"architecture": "aarch64"}),  # torch does not name its instructions
        ("bfloat16", {}),
    ],
)
def test_no_warning_without_need(processor, caplog, dtype, known):
    processor(**known)
    assert placed(dtype, None) == CPU
    assert not caplog.text


def test_a_place_that_is_none():
    with pytest.raises(InputError, match="expected dtype"):
        placed("float64", None)
    with pytest.raises(InputError, match="expected device"):
        placed("float32", "no such")
