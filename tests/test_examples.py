"""The tutorials run as they are, shortened, and their pictures are what they say."""

from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHORTER = {
    r"\b(num_inference_steps|steps)( ?= ?)\d+": r"\1\g<2>2",
    r"\bnum_samples=\d+": "num_samples=3",
    r"\bscans=\d+": "scans=8",
    r"\brender\(2000,": "render(200,",
    r"\brange\(300\)": "range(150)",
}
"""Pattern in a cell: what is put in its place. Fewer steps run every line, too."""


class Expected(NamedTuple):
    """What a tutorial leaves behind: its number of pictures, and shapes by expression."""

    pictures: int
    shapes: dict[str, tuple[int, ...]]


EXPECTED = {
    "01_first_reconstruction": Expected(
        3, {"prior.images": (1, 128, 128), "prior.coil_maps": (1, 8, 128, 128)}
    ),
    "02_prompt": Expected(2, {"drawn": (3, 128, 128), "output.images": (1, 128, 128)}),
    "03_choose_a_solver": Expected(1, {"published.images": (1, 96, 96)}),
    "04_uncertainty": Expected(
        3, {"output.samples": (1, 3, 128, 128), "output.std": (1, 128, 128)}
    ),
    "05_your_own_scan": Expected(
        3, {"scan.kspace": (1, 8, 128, 128), "scan.affine": (4, 4), "maps": (8, 128, 128)}
    ),
    "06_networks": Expected(2, {"output.expected_error": (1, 64, 64)}),
    "07_learned_masks": Expected(
        3, {"output.images": (1, 3, 64, 64), "output.masks": (1, 3, 1, 64, 64)}
    ),
    "08_tasks_from_kspace": Expected(
        2, {"found.samples": (1, 3, 32, 32), "found.probabilities": (1, 2, 32, 32)}
    ),
    "09_t1_aided_t2": Expected(
        2, {"output.aligned": (1, 64, 64), "output.displacement": (1, 2, 64, 64)}
    ),
    "10_non_cartesian": Expected(
        3, {"outputs['spiral, 6 interleaves']['diffusion prior'].images": (1, 96, 96)}
    ),
    "11_write_a_solver": Expected(2, {"output.images": (1, 128, 128), "sense": (1, 128, 128)}),
}


def test_every_tutorial_is_expected() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_notebook_is_stored_without_outputs(name: str) -> None:
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert re.match(r"# \w", "".join(cells[0]["source"]))
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            titles = re.findall("^# ", "".join(cell["source"]), flags=re.MULTILINE)
            assert len(titles) == (cell is cells[0])  # one page, one title


@pytest.mark.parametrize("name", EXPECTED)
def test_notebook_runs(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    import matplotlib.pyplot as plt

    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    pictures = 0
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for source in sources:
            shown = _run(_shortened(source), namespace)
            if isinstance(shown, Image.Image):
                assert np.asarray(shown.convert("L")).std() > 10
                pictures += 1
            for number in plt.get_fignums():
                _check_figure(plt.figure(number))
                pictures += 1
            plt.close("all")

    expected = EXPECTED[name]
    assert pictures == expected.pictures
    for expression, shape in expected.shapes.items():
        assert tuple(eval(expression, namespace).shape) == shape, expression
    assert capsys.readouterr().err == ""  # no progress bar, no warning
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    assert list(tmp_path.iterdir()) == []


def _shortened(source: str) -> str:
    for pattern, shorter in SHORTER.items():
        source = re.sub(pattern, shorter, source)
    return source


def _run(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last expression, as Jupyter displays it."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "cell", "exec"), namespace)
        return None
    tree.body.pop()
    exec(compile(tree, "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


def _check_figure(figure: Any) -> None:
    """Images are right way up, on a fixed scale and finite; curves have labels."""
    figure.canvas.draw()
    seen = [axes for axes in figure.axes if axes.has_data()]
    assert seen
    flat: list[bool] = []
    for axes in seen:
        for picture in axes.images:
            values = np.ma.filled(picture.get_array(), np.nan)
            assert values.ndim == 2
            assert picture.origin == "upper"
            assert picture.get_cmap().name in {"gray", "magma", "twilight"}
            assert np.isfinite(values).mean() > 0.2
            flat.append(bool(np.nanstd(values) == 0))
            # Limits that a cell sets are rounded; those of the data are not.
            limits = picture.get_clim()
            assert limits == tuple(round(limit, 2) for limit in limits), axes.get_title()
        if axes.lines and not axes.images:
            assert axes.get_xlabel()
            assert axes.get_title()
    # An untrained network may mark nothing, but not every picture may be empty.
    assert 4 * sum(flat) <= len(flat)
