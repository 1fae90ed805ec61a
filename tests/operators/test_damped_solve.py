"""Solutions of ``(AᴴA + damping) x = b`` with implicit gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from measured import DoubleSense, measurement

from ctxrecon.linalg import conjugate_gradient, damped_solve
from ctxrecon.operators import LinearOperator, WeightedSense


def damped(
    operator: LinearOperator | DoubleSense, damping: float | torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """``x`` to ``(AᴴA + damping) x``."""
    return lambda x: operator.normal(x) + damping * x


class TestDampedSolve:
    """Conjugate gradients whose gradients are implicit."""

    def test_it_solves(self):
        operator, y, _ = measurement()
        rhs, damping = operator.adjoint(y), torch.tensor(0.2)
        x = damped_solve(operator.normal, rhs, damping, 60)
        torch.testing.assert_close(operator.normal(x) + 0.2 * x, rhs, rtol=1e-4, atol=1e-4)

    def test_gradients_are_those_of_the_unrolled_iterations_at_convergence(self):
        """In double precision: iterations stop at rounding, where their gradients are coarser."""
        measured, y, image = measurement()
        assert measured.coil_maps is not None
        operator = DoubleSense(measured.mask.double(), measured.coil_maps.to(torch.complex128))
        found = []
        for implicit in (True, False):
            rhs = operator.adjoint(y.to(torch.complex128)).requires_grad_()
            damping = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
            if implicit:
                x = damped_solve(operator.normal, rhs, damping, 60)
            else:
                x = conjugate_gradient(damped(operator, damping), rhs, num_iterations=60)
            (x - image).abs().square().sum().backward()
            found.append((rhs.grad, damping.grad))
        for implicit, unrolled in zip(*found, strict=True):
            assert float((implicit - unrolled).norm() / unrolled.norm()) < 1e-9

    def test_gradients_by_the_operator_itself(self):
        """The weights of a mask in ``H``, which the iterations differentiate as well."""
        operator, y, image = measurement()
        found: list[torch.Tensor] = []
        for implicit in (True, False):
            weights = (0.3 + 0.5 * operator.mask.float()).requires_grad_()
            weighted = WeightedSense(weights, operator.coil_maps)
            rhs, damping = operator.adjoint(y), torch.tensor(0.3)
            if implicit:
                x = damped_solve(weighted.normal, rhs, damping, 60)
            else:
                x = conjugate_gradient(damped(weighted, 0.3), rhs, num_iterations=60)
            (x - image).abs().square().sum().backward()
            assert weights.grad is not None
            found.append(weights.grad)
        assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-4
        assert float(found[1].norm()) > 0

    def test_nothing_of_the_iterations_is_kept(self):
        """Tensors saved for the backward pass, in elements, do not grow with the iterations."""
        operator, y, _ = measurement()

        def saved(iterations: int, implicit: bool) -> int:
            kept: list[int] = []

            def keep(t: torch.Tensor) -> torch.Tensor:
                kept.append(t.numel())
                return t

            rhs = operator.adjoint(y).requires_grad_()
            damping = torch.tensor(0.3, requires_grad=True)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                if implicit:
                    damped_solve(operator.normal, rhs, damping, iterations)
                else:
                    conjugate_gradient(
                        lambda v: operator.normal(v) + damping * v, rhs, num_iterations=iterations
                    )
            return sum(kept)

        assert saved(5, True) == saved(40, True)
        assert saved(40, False) > 4 * saved(5, False)  # so the hooks do see what is kept
