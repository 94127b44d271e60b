"""The optimiser of stacked agents."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class StackedAdam:
    """Adam (Kingma and Ba 2015) on stacked parameters, with one step counter per agent.

    Parameters
    ----------
    module : nn.Module
        Module whose parameters have a leading agent axis.
    max_norm : float
        Largest norm of the gradient of an agent; a longer one is clipped.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-5  # the epsilon of the published PPO code, not of Adam

    def __init__(self, module: nn.Module, max_norm: float) -> None:
        self.parameters = list(module.parameters())
        self.max_norm = max_norm
        # One row per agent with all its parameters: few large operations, not many small.
        agents = self.parameters[0].shape[0]
        self.first = torch.zeros(agents, sum(p[0].numel() for p in self.parameters))
        self.second = torch.zeros_like(self.first)
        self.steps = torch.zeros(agents)

    @torch.no_grad()
    def step(self, rate: Tensor, active: Tensor) -> None:
        """Step the agents for which `active` (A,) is true by `rate` (A,); the others stay equal."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        g = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
        g *= (self.max_norm / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.steps += active
        on = active.unsqueeze(1).to(g.dtype)
        steps = self.steps.clamp(min=1).unsqueeze(1)
        self.first.add_((g - self.first) * ((1 - self.BETAS[0]) * on))
        self.second.add_((g * g - self.second) * ((1 - self.BETAS[1]) * on))
        spread = (self.second / (1 - self.BETAS[1] ** steps)).sqrt_().add_(self.EPSILON)
        change = self.first / (1 - self.BETAS[0] ** steps) / spread * (on * rate.unsqueeze(1))
        sizes = [p[0].numel() for p in self.parameters]
        for p, part in zip(self.parameters, torch.split(change, sizes, dim=1), strict=True):
            p.sub_(part.reshape(p.shape))
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return moments and step counters."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
