"""The peer's side of the 2-D table: the PyPI package torchcfm, as its documentation trains it."""

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

from two_dim_tasks import (
    BRIDGE_SIGMA,
    EULER_STEPS,
    HIDDEN_LAYERS,
    LEARNING_RATE,
    METHODS,
    SIGMA,
    WEIGHT_DECAY,
    WIDTH,
    Outcome,
    Pairs,
    fresh_pairs,
    rectify_sources,
    stored_pairs,
    test_points,
)

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
    widths = [3, *[WIDTH] * HIDDEN_LAYERS]
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [torch.nn.Linear(before, after), torch.nn.SELU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 2))


def _velocity(network: torch.nn.Module, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return network(torch.cat([x, t[:, None]], dim=-1))


@torch.no_grad()
def _euler(network: torch.nn.Module, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, float]:
    """x at t = 1 and the path energy."""
    energy = 0.0
    for k in range(steps):
        v = _velocity(network, torch.full((len(x),), k / steps), x)
        energy += v.square().sum(dim=1).mean().item() / steps
        x = x + v / steps
    return x, energy


def train(method: str, pairs: Pairs, seed: int, steps: int) -> tuple[torch.nn.Module, float]:
    """Trains one flow on pairs drawn by ``pairs(rng, n)``; the network and the seconds it took."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # torchcfm draws its plans from numpy's global generator
    rng = np.random.default_rng(seed)
    batch, matcher, network = METHODS[method].batch, MATCHERS[method](), _network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    began = time.perf_counter()
    for _ in range(steps):
        x0, x1 = (torch.from_numpy(x) for x in pairs(rng, batch))
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = (_velocity(network, t, x_t) - u_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, time.perf_counter() - began


class Runner:
    """Trains row by row; remembers the 1-rectified flows, from which the 2-rectified ones learn."""

    name = "torchcfm"

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        self._first = {}

    def run(self, method: str, task: str, seeds: list[int], steps: int) -> dict[int, Outcome]:
        """One outcome for each seed."""
        return {seed: self._run_one(method, task, seed, steps) for seed in seeds}

    def _run_one(self, method: str, task: str, seed: int, steps: int) -> Outcome:
        pairs = fresh_pairs(task)
        if method == "2-RF":
            if (task, seed) not in self._first:  # it came from the cache
                steps_of_first = METHODS["1-RF"].steps
                self._first[task, seed], _ = train("1-RF", pairs, seed, steps_of_first)
            x0 = rectify_sources(task, seed)
            x1, _ = _euler(self._first[task, seed], torch.from_numpy(x0), EULER_STEPS)
            pairs = stored_pairs(x0, x1.numpy())
        network, seconds = train(method, pairs, seed, steps)
        if method == "1-RF":
            self._first[task, seed] = network
        x0 = torch.from_numpy(test_points(task)[0])
        x1, energy = _euler(network, x0, EULER_STEPS)
        return Outcome(x1.numpy(), _euler(network, x0, 1)[0].numpy(), energy, seconds)
