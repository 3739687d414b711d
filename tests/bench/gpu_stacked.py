"""Stacked training on a GPU against one network at a time. A script: run it where there is a CUDA device.

    python tests/bench/gpu_stacked.py
    python tests/bench/gpu_stacked.py --device cpu --small      # only whether it runs

It prints JSON, a line for each result:

- `roofline`: what the device reaches, by measurement: a large matrix product without TF32, a large copy.
- `speed`: steps of one network per second, one line for every way; `share` is that of the roofline, the time that
  the arithmetic or the least traffic of a step takes at those rates, whichever is longer, over the time it took.
- `equality`: stacked against the reference trainer on the same device, float64, largest relative difference over all
  parameters; beside it the same for a seed planted wrongly, which has to be large.
- `determinism`: whether two stacked trainings from the same seeds end in the same bytes.

It exits with 1 where networks differ by more than 1e-9, the wrong seed is not seen, or the bytes differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from statistics import median

import numpy as np
import torch
from torch import nn

from nasbed.methods.spaces.nb201 import NB201
from nasbed.protocols import Architecture, Split, Task
from nasbed.protocols.streams import integer, torch_generator
from nasbed.protocols.training import PIPELINES, Streams, fit, fit_stacked, materialise
from nasbed.protocols.training.buckets import bucket_size
from nasbed.protocols.training.cuda import captured, deterministic
from nasbed.protocols.training.descent import make_optimizer
from nasbed.protocols.training.flops import network_flops
from nasbed.protocols.training.lockstep import Lockstep
from nasbed.protocols.training.objectives import CLASSES
from nasbed.protocols.training.stacked import Batch, Stack
from nasbed.protocols.training.stacked_layers import choices

PIPELINE = replace(PIPELINES["sgd_cosine"], epochs=2, batch_size=64)
TOLERANCE = 1e-9


def show(kind: str, **values: object) -> None:
    print(json.dumps({"result": kind, **values}), flush=True)


class Bench:
    """Networks of random cells of NAS-Bench-201, and random images."""

    def __init__(self, device: str, k: int, channels: int, side: int, batch: int, repeats: int) -> None:
        self.device, self.k, self.batch, self.repeats = device, k, batch, repeats
        self.pipeline = replace(PIPELINE, batch_size=batch)
        self.task = Task("random", "image", "accuracy", True, (3, side, side), 10, "")
        self.space = NB201(channels=channels, cells=1)
        rng = np.random.default_rng(0)
        self.members = [(self.space.sample(rng), seed) for seed in range(k)]
        n = 2 * batch + batch // 2
        self.split = Split(rng.normal(size=(n, *self.task.shape)).astype(np.float32), rng.integers(10, size=n))
        self.x = torch.from_numpy(self.split.x[:batch]).to(device)
        self.y = torch.from_numpy(self.split.y[:batch]).to(device)

    def networks(self, dtype: torch.dtype = torch.float32) -> list[nn.Module]:
        return [self.network(a, seed, dtype).to(self.device) for a, seed in self.members]

    def network(self, a: Architecture, seed: int, dtype: torch.dtype) -> nn.Module:
        return materialise(self.space.build(a, self.task), torch_generator(seed, "init", a), dtype=dtype)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object], warm_up: int = 3) -> float:
        """Median of the repeats, after warming up."""
        for _ in range(warm_up):
            function()
        taken = []
        for _ in range(self.repeats):
            self.wait()
            began = time.perf_counter()
            function()
            self.wait()
            taken.append(time.perf_counter() - began)
        return median(taken)

    # --- what the device can do

    def roofline(self) -> tuple[float, float]:
        """FLOPs and bytes per second."""
        side = 8192 if self.device == "cuda" else 512
        a = torch.ones(side, side, device=self.device)
        flops = 2 * side**3 / self.seconds(lambda: a @ a)
        b = torch.ones(2**28 if self.device == "cuda" else 2**22, device=self.device)
        traffic = 2 * b.nbytes / self.seconds(b.clone)
        show("roofline", tflops=flops / 1e12, terabytes_per_second=traffic / 1e12)
        return flops, traffic

    def least(self, flops: float, traffic: float) -> float:
        """Seconds of one step of all networks at those rates."""
        seconds = 0.0
        for a, _ in self.members:
            network = self.space.build(a, self.task)
            arithmetic = self.batch * network_flops(network, self.task)[1]
            kept: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
                network(torch.empty(self.batch, *self.task.shape, device="meta"))
            # What the backward pass needs is written once and read once.
            seconds += max(arithmetic / flops, 2 * sum(kept) / traffic)
        return seconds

    # --- one at a time

    def single(self, wrap: Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]]) -> Callable[[], None]:
        steps = []
        for network in self.networks():
            optimizer = make_optimizer(list(network.parameters()), self.pipeline)
            steps.append((wrap(network), optimizer))

        def step() -> None:
            for forward, optimizer in steps:
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(forward(self.x), self.y).backward()
                optimizer.step()

        return step

    def single_graphs(self) -> Callable[[], None]:
        """Forward and backward pass of each network as a CUDA graph of its own."""
        graphs = []
        for network in self.networks():
            optimizer = make_optimizer(list(network.parameters()), self.pipeline)

            def pass_(network: nn.Module = network) -> None:
                for p in network.parameters():
                    p.grad.zero_()
                nn.functional.cross_entropy(network(self.x), self.y).backward()

            for p in network.parameters():
                p.grad = torch.zeros_like(p)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    pass_()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                pass_()
            graphs.append((graph, optimizer))

        def step() -> None:
            for graph, optimizer in graphs:
                graph.replay()
                optimizer.step()

        return step

    # --- side by side

    def stack(self, convolution: str, wrap: Callable[[Lockstep], Stack]) -> Callable[[], None]:
        stack = wrap(Lockstep(self.networks(), self.pipeline, convolution))
        optimizer = make_optimizer(list(stack.parameters), self.pipeline)
        x, y = self.x.expand(self.k, *self.x.shape).contiguous(), self.y.expand(self.k, -1).contiguous()

        def step() -> None:
            stack.gradients(x, y, Batch(), CLASSES)
            optimizer.step()

        return step

    def ways(self) -> Iterator[tuple[str, Callable[[], Callable[[], None]]]]:
        yield "single eager", lambda: self.single(lambda network: network)
        if self.device == "cuda":
            yield "single compiled", lambda: self.single(lambda n: torch.compile(n, mode="reduce-overhead"))
            yield "single CUDA graphs", self.single_graphs
        for convolution in ("grouped", "gemm", "timed"):
            yield f"stacked eager {convolution}", lambda c=convolution: self.stack(c, lambda s: s)
            if self.device == "cuda":
                yield f"stacked CUDA graph {convolution}", lambda c=convolution: self.stack(c, captured)

    def speed(self) -> None:
        least = self.least(*self.roofline())
        for name, make in self.ways():
            try:
                seconds = self.seconds(make())
            except (RuntimeError, ValueError) as error:  # one way that fails is a result, too
                show("speed", way=name, failed=str(error).splitlines()[0])
                continue
            show("speed", way=name, steps_per_second=self.k / seconds, share=least / seconds)
        show("choices", convolutions=choices().splitlines())

    # --- the same networks

    def stacked(self, members: list[tuple[Architecture, int]], dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
        networks = {(a, s): self.space.build(a, self.task) for a, s in members}
        return fit_stacked(networks, self.split, {}, self.pipeline, dtype=dtype, device=self.device)[1]

    def alone(self, a: Architecture, seed: int) -> dict[str, torch.Tensor]:
        network, noise = self.network(a, seed, torch.float64), integer(seed, "network-noise", a)
        with deterministic(self.device):
            streams = Streams(seed, a)
            fit(network, self.split, {}, self.pipeline, streams=streams, noise_seed=noise, device=self.device)
        return {name: t.cpu() for name, t in network.state_dict().items()}

    def correctness(self, checked: int = 8) -> bool:
        members = self.members[:checked]
        states = self.stacked(members, torch.float64)
        far = [difference(state, self.alone(*m)) for state, m in zip(states, members, strict=True)]
        a, seed = members[0]
        control = difference(states[0], self.alone(a, next(s for s in count(10**6) if s != seed)))
        show("equality", largest=max(far), wrong_seed=control)
        first, again = (self.stacked(members, torch.float32) for _ in range(2))
        same = all(torch.equal(one[n], other[n]) for one, other in zip(first, again, strict=True) for n in one)
        show("determinism", same_bytes=same)
        return max(far) < TOLERANCE < 1e-3 < control and same


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest, relative to a tensor's largest value or 1e-3; infinite where anything is not a number."""
    if not all(t.isfinite().all() for state in (ours, theirs) for t in state.values()):
        return float("inf")
    return max(float((t - theirs[n]).abs().max() / theirs[n].abs().max().clamp(min=1e-3)) for n, t in ours.items())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks, few repeats: only whether it runs")
    for name, value in (("networks", 64), ("channels", 16), ("side", 16), ("batch", 64), ("repeats", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu_stacked: there is no usable CUDA device; --device cpu --small shows whether it runs", file=sys.stderr
        )
        return 2
    sizes = (3, 4, 8, 8, 2) if given.small else (given.networks, given.channels, given.side, given.batch, given.repeats)
    bench = Bench(given.device, *sizes)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    built = {(a, s): bench.space.build(a, bench.task) for a, s in bench.members}
    fits = bucket_size(built, bench.split, bench.pipeline, device=given.device)
    show("setting", device=name, torch=torch.__version__, sizes=sizes, networks_that_fit=fits)
    right = bench.correctness()
    with deterministic(given.device):
        bench.speed()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
