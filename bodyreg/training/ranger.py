"""Ranger: rectified Adam with a slow copy of the weights that it follows half way now and then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Ranger"]


class Ranger(torch.optim.Optimizer):
    """RAdam (Liu et al., ICLR 2020) inside Lookahead (Zhang et al., NeurIPS 2019), as GLA-GCN trains.

    With N = N_max - 2 t b2^t / (1 - b2^t), N_max = 2 / (1 - b2) - 1: as long as N is at most `threshold`, the step is
    the plain bias-corrected momentum; after that the rectified adaptive one. Every `k`-th step the slow copy, which
    starts as the weights, moves `alpha` of the way to them, and they are set to it.

    Raises:
        ValueError: numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        *,
        alpha: float = 0.5,
        k: int = 6,
        threshold: float = 5.0,
    ) -> None:
        if lr <= 0 or not 0 <= alpha <= 1 or k < 1 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"Ranger got lr {lr}, betas {betas}, alpha {alpha}, k {k}. "
                "Give a positive rate, betas and alpha in [0, 1] and a whole k."
            )
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "alpha": alpha, "k": k,
                    "threshold": threshold}  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see the class."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["slow"] = parameter.clone()
        state["step"] += 1
        (b1, b2), t, lr = group["betas"], state["step"], group["lr"]
        m, v = state["m"], state["v"]
        m.lerp_(gradient, 1 - b1)
        v.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        if group["weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        rectification = _rectification(t, b2, group["threshold"])
        if rectification is None:
            parameter.add_(m, alpha=-lr / (1 - b1**t))
        else:
            parameter.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-lr * rectification / (1 - b1**t))
        if t % group["k"] == 0:
            state["slow"].lerp_(parameter, group["alpha"])
            parameter.copy_(state["slow"])


def _rectification(t: int, b2: float, threshold: float) -> float | None:
    """Factor of the adaptive step with its bias correction, None while the variance is not yet to be trusted."""
    decayed = b2**t
    largest = 2 / (1 - b2) - 1
    n = largest - 2 * t * decayed / (1 - decayed)
    if n <= threshold:
        return None
    return math.sqrt((1 - decayed) * (n - 4) / (largest - 4) * (n - 2) / n * largest / (largest - 2))
