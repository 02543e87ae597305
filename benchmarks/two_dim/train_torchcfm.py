"""The 2-D table by the PyPI package torchcfm, trained as its documentation does it."""

import itertools
import time

import numpy as np
import torch
from torchcfm.conditional_flow_matching import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
    SchrodingerBridgeConditionalFlowMatcher,
    TargetConditionalFlowMatcher,
    VariancePreservingConditionalFlowMatcher,
)

from benchmarks.two_dim import protocol
from benchmarks.two_dim.protocol import BRIDGE_SIGMA, METHODS, SIGMA, Pairs
from benchmarks.two_dim.runner import EulerPath, Library

MATCHERS = {
    "FM": lambda: TargetConditionalFlowMatcher(SIGMA),
    "I-CFM": lambda: ConditionalFlowMatcher(SIGMA),
    "OT-CFM": lambda: ExactOptimalTransportConditionalFlowMatcher(SIGMA),
    "SB-CFM": lambda: SchrodingerBridgeConditionalFlowMatcher(BRIDGE_SIGMA, ot_method="sinkhorn"),
    "VP": lambda: VariancePreservingConditionalFlowMatcher(SIGMA),
    "1-RF": lambda: ConditionalFlowMatcher(0.0),
    "2-RF": lambda: ConditionalFlowMatcher(0.0),
}


def _network() -> torch.nn.Module:
    widths = [3, *[protocol.WIDTH] * protocol.HIDDEN_LAYERS]
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [torch.nn.Linear(before, after), torch.nn.SELU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(protocol.WIDTH, 2))


def _velocity(network: torch.nn.Module, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return network(torch.cat([x, t[:, None]], dim=-1))


def _train_one(method: str, pairs: Pairs, seed: int, steps: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    np.random.seed(seed)  # torchcfm draws its plans from numpy's global generator
    rng = np.random.default_rng(seed)
    batch, matcher, network = METHODS[method].batch, MATCHERS[method](), _network()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=protocol.LEARNING_RATE, weight_decay=protocol.WEIGHT_DECAY
    )
    for _ in range(steps):
        x0, x1 = (torch.from_numpy(x) for x in pairs(rng, batch))
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = (_velocity(network, t, x_t) - u_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def train(
    method: str, pairs: dict[int, Pairs], steps: int
) -> tuple[dict[int, torch.nn.Module], float]:
    """Trains one flow for each seed, one after the other; the networks, and the seconds of all."""
    began = time.perf_counter()
    trained = {seed: _train_one(method, drawn, seed, steps) for seed, drawn in pairs.items()}
    return trained, time.perf_counter() - began


@torch.no_grad()
def solve(network: torch.nn.Module, x0: np.ndarray, steps: int) -> EulerPath:
    """The flow's path from x0 by Euler steps."""
    x = torch.from_numpy(x0)
    one_step, energy = x + _velocity(network, torch.zeros(len(x)), x), 0.0
    for k in range(steps):
        v = _velocity(network, torch.full((len(x),), k / steps), x)
        energy += v.square().sum(dim=1).mean().item() / steps
        x = x + v / steps
    return EulerPath(x.numpy(), one_step.numpy(), energy)


def library(threads: int) -> Library:
    """torchcfm on so many threads."""
    torch.set_num_threads(threads)
    return Library("torchcfm", train, solve)
