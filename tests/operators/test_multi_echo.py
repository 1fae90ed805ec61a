"""An operator for each echo, the echoes folded into the batch."""

from __future__ import annotations

import pytest
import torch
from small_operators import (
    NX,
    NY,
    draw,
    draw_maps,
    draw_mask,
    radial,
)

from ctxrecon.errors import InputError
from ctxrecon.operators import (
    CartesianSense,
    Inpainting,
    MultiEcho,
)

# Several echoes


def test_each_echo_has_its_own_measurement():
    echoes = [CartesianSense(draw_mask(seed=e), draw_maps(seed=e)) for e in range(3)]
    operator = MultiEcho(echoes)
    assert operator.domain_shape == (1, 3, NY, NX)
    assert operator.range_shape == (1, 3, 3, NY, NX)
    x = draw(2, 3, NY, NX)
    y, folded = operator(x), operator.folded(batch_size=2)
    for e, echo in enumerate(echoes):
        torch.testing.assert_close(y[:, e], echo(x[:, e]))
    assert folded.range_shape == (6, 3, NY, NX)
    torch.testing.assert_close(folded(x.flatten(0, 1)), y.flatten(0, 1))
    norms = torch.stack([echo.squared_norm(x[:, e]) for e, echo in enumerate(echoes)], dim=1)
    torch.testing.assert_close(folded.squared_norm(x.flatten(0, 1)), norms.flatten())
    torch.testing.assert_close(operator.squared_norm(x), norms.sum(dim=1))


@pytest.mark.parametrize(
    ("echoes", "sentence"),
    [
        (lambda: [], "one or more operators"),
        (lambda: [draw_mask()], "one or more operators"),
        (lambda: [radial(), Inpainting(draw_mask())], "all echoes"),
        (lambda: [radial(batch=2), radial(batch=3)], "one batch"),
    ],
)
def test_echoes_that_do_not_fit_together(echoes, sentence):
    with pytest.raises(InputError, match=sentence):
        MultiEcho(echoes())


def test_echoes_folded_into_a_batch_that_does_not_fit():
    with pytest.raises(InputError, match=r"batch_size .* 3 .* 2"):
        MultiEcho([radial(batch=3)]).folded(batch_size=2)
    with pytest.raises(InputError, match="a positive batch_size"):
        MultiEcho([radial()]).folded(batch_size=0)
