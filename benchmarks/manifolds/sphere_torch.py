"""Training steps of a flow on the sphere by flow_matching on PyTorch, for sphere_speed.py.

Written as the notebook of flow_matching on the sphere has it: a perceptron whose input is projected
to the sphere and whose output to the tangent space, `GeodesicProbPath`, the mean squared error.
"""

import itertools
import os

import torch
from flow_matching.path import GeodesicProbPath
from flow_matching.path.scheduler import CondOTScheduler
from flow_matching.utils.manifolds import Sphere

from benchmarks.machine import versions
from benchmarks.speed.worker import THREADS, Variants, serve

BATCH, DEPTH = 512, 5


class Network(torch.nn.Module):
    """A perceptron of x and t with the activation x sigmoid(x)."""

    def __init__(self, width: int):
        super().__init__()
        sizes = [4, *[width] * DEPTH, 3]
        layers = []
        for a, b in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(a, b), torch.nn.SiLU()]
        self.layers, self.manifold = torch.nn.Sequential(*layers[:-1]), Sphere()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Tangent vectors at points x (batch, 3), t (batch,)."""
        return self.manifold.proju(x, self.layers(torch.cat([x, t[:, None]], dim=1)))


def _run(width: int, compiled: bool):
    torch.manual_seed(0)
    manifold, network = Sphere(), Network(width)
    path = GeodesicProbPath(scheduler=CondOTScheduler(), manifold=manifold)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x1 = manifold.projx(torch.randn(BATCH, 3) * 0.3 + torch.tensor([0.0, 0.0, 1.0]))
    call = torch.compile(network) if compiled else network

    def run(n: int) -> float:
        for _ in range(n):
            optimizer.zero_grad()
            x0, t = manifold.projx(torch.randn_like(x1)), torch.rand(BATCH)
            sample = path.sample(t=t, x_0=x0, x_1=x1)
            loss = torch.square(call(sample.x_t, sample.t.reshape(-1)) - sample.dx_t).mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


class Served(Variants):
    """flow_matching's steps."""

    def __init__(self):
        super().__init__()
        torch.set_num_threads(int(os.environ.get(THREADS, torch.get_num_threads())))

    def about(self) -> dict:
        """Versions and threads."""
        return {
            "versions": versions(("torch", "flow-matching")),
            "threads": torch.get_num_threads(),
        }

    def prepare(self, name: str) -> dict:
        """Makes a variant ready, and says its loss after 200 steps."""
        mode, width = name.split()
        self.ready[name] = _run(int(width), mode == "compiled")
        return {"loss": self.ready[name](200)}


if __name__ == "__main__":
    serve(Served())
