"""Which tiles `TILES` of `_triton/common.py` should list, by the network's layers: `bench/gpu.py --tiles`."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from gpu_clock import Clock, Contender
from gpu_report import heading
from torch import Tensor

Tile = tuple[int, int, int, int]  # rows, depth, warps, stages
CLIPS = (1, 16, 256)
PROCESSES = 12  # that compile
CANDIDATES: dict[tuple[str, bool], tuple[Tile, ...]] = {  # by `TILES`' keys
    ("few", True): ((32, 32, 4, 1), (16, 32, 2, 1), (64, 32, 4, 1), (32, 32, 2, 1)),
    ("few", False): (
        (32, 32, 4, 3), (32, 64, 4, 3), (32, 64, 4, 4), (16, 64, 2, 4), (32, 64, 2, 4), (64, 64, 4, 3), (16, 64, 4, 4),
        (32, 128, 4, 3),
    ),
    ("some", True): ((64, 32, 4, 1), (128, 32, 4, 1), (32, 32, 4, 1)),
    ("some", False): (
        (64, 32, 4, 3), (64, 64, 4, 3), (64, 64, 4, 4), (128, 64, 8, 3), (128, 32, 8, 3), (128, 64, 4, 3),
        (32, 64, 4, 3),
    ),
    ("many", True): ((128, 32, 8, 1), (128, 32, 4, 1), (64, 32, 4, 1), (256, 32, 8, 1)),
    ("many", False): (
        (128, 32, 8, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3), (128, 32, 4, 4), (64, 64, 4, 4),
        (256, 32, 8, 3),
    ),
}  # fmt: skip


class Layer(NamedTuple):
    name: str
    frames: int  # of a clip
    channels: int
    filters: int
    side: int
    pool: int = 1
    shifted: bool = False

    def pixels(self, clips: int) -> int:
        return clips * self.frames * self.side**2


LAYERS = (
    Layer("block1 first", 1, 3, 32, 144), Layer("block1 second", 1, 32, 32, 144, pool=2),
    Layer("block2 first", 1, 32, 32, 72), Layer("block2 second", 1, 32, 64, 72, pool=2),
    Layer("block3 first", 1, 64, 64, 36), Layer("block3 second", 1, 64, 64, 36, pool=4),
    *(Layer(f"trunk {c}->{f}", 3, c, f, 9, shifted=True) for c, f in ((3, 32), (32, 32), (32, 64))),
)  # fmt: skip


class Job(NamedTuple):
    layer: Layer
    clips: int
    size: str
    shallow: bool
    tile: Tile

    def call(self) -> Callable[[], Tensor]:
        """The layer on the GPU in bfloat16, channels last, by its tile."""
        from bigsmall_kernels._triton import common, wtsm_conv2d

        of, (rows, depth, warps, stages) = self.layer, self.tile
        shape = (self.clips * of.frames, of.channels, of.side, of.side)
        x = torch.randn(shape, device="cuda").bfloat16().contiguous(memory_format=torch.channels_last)
        weight = (torch.randn(of.filters, of.channels, 3, 3, device="cuda") / 17).bfloat16()
        bias = torch.randn(of.filters, device="cuda").bfloat16()

        def blocks(x: Tensor, pixels: int, filters: int, terms: int, *, masked: bool) -> common.Blocks:
            return common.Blocks(rows, common.blocks(x, pixels, filters, terms).columns, depth, warps, stages)

        def run() -> Tensor:
            with mock.patch.object(wtsm_conv2d, "blocks", blocks):
                return wtsm_conv2d.convolve(
                    x, None, weight, bias, [1, 1], torch.channels_last, activation="relu", pool=of.pool,
                    n_segment=of.frames, fold=of.channels // 3 if of.shifted else 0,
                )  # fmt: skip

        return run


def _jobs() -> Iterator[Job]:
    from bigsmall_kernels._triton import common

    for clips, layer in itertools.product(CLIPS, LAYERS):
        pixels, shallow = layer.pixels(clips), 9 * layer.channels <= common.SHALLOW
        size = "few" if pixels < common.FEW else "some" if pixels < common.MANY else "many"
        yield from (Job(layer, clips, size, shallow, tile) for tile in CANDIDATES[size, shallow])


def _compile(jobs: list[Job]) -> None:
    """Into Triton's cache; a tile that this device has no room for fails again where it is timed."""
    for job in jobs:
        try:
            job.call()()
        except Exception as problem:
            print(f"{job.layer.name}, {job.tile}: {problem}"[:200])


def _plain(clock: Clock) -> dict[str, float]:
    """A dry run's only way: the first layer in plain PyTorch."""
    x, weight = torch.randn(1, 3, 16, 16), torch.randn(32, 3, 3, 3)
    return clock.measure({"reference": Contender(lambda: F.conv2d(x, weight).relu())})


def run(clock: Clock, provenance: dict[str, Any], limit: float) -> dict[str, Any]:
    """Microseconds of every layer by every candidate that agrees with the first one, in CUDA graphs."""
    begun = time.monotonic()
    results: dict[str, Any] = {**provenance, "rows": [], "left_out": []}
    if not clock.cuda:
        results["rows"].append({"layer": "", "clips": 1, "size": "", "shallow": True, "microseconds": _plain(clock)})
        return results
    jobs = list(_jobs())
    processes = multiprocessing.get_context("spawn")
    compilers = [processes.Process(target=_compile, args=(jobs[i::PROCESSES],)) for i in range(PROCESSES)]
    for process in compilers:
        process.start()
    for process in compilers:
        process.join()
    for (layer, clips), group in itertools.groupby(jobs, key=lambda job: (job.layer, job.clips)):
        graphs, several, first = {}, list(group), None
        for job in several:
            if time.monotonic() - begun > limit:
                results["left_out"].append(f"{layer.name}, {clips} clips, {job.tile}")
                continue
            try:
                torch.manual_seed(0)
                call = job.call()
                found = call().float()
                first = found if first is None else first
                if not torch.allclose(found, first, rtol=2e-2, atol=2e-2):
                    raise ValueError("another result than the first tile's")
                graphs[str(job.tile)] = clock.graph(Contender(call))
            except Exception as problem:
                results["left_out"].append(f"{layer.name}, {clips} clips, {job.tile}: {problem}"[:200])
        times = {name: seconds * 1e6 for name, seconds in clock.measure(graphs).items()}
        row = {"layer": layer.name, "clips": clips, "size": several[0].size, "shallow": several[0].shallow}
        results["rows"].append({**row, "microseconds": times})
    return results


def table(results: dict[str, Any]) -> str:
    """Of each key of `TILES` the candidates, by their mean time over the layers' best."""
    lines = [
        heading(results),
        "",
        "The network's layers in bfloat16, channels last, in CUDA graphs. A tile is (rows, depth, warps, stages).",
        "",
        "| pixels | one step deep | layer | clips | best tile | µs | the others |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        times = sorted(row["microseconds"].items(), key=lambda item: item[1])
        if not times:
            continue
        (best, least), others = times[0], ", ".join(f"{tile} {value:,.1f}" for tile, value in times[1:])
        kind = f"{row['size']} | {'yes' if row['shallow'] else 'no'} | {row['layer']} | {row['clips']}"
        lines.append(f"| {kind} | {best} | {least:,.1f} | {others} |")
    lines += ["", "| pixels | one step deep | tile: mean of its time over the layer's best |", "|---|---|---|"]
    for size, shallow in CANDIDATES:
        rows = [row["microseconds"] for row in results["rows"] if (row["size"], row["shallow"]) == (size, shallow)]
        tiles = set.intersection(*map(set, rows)) if rows else set()
        means = sorted((sum(us[tile] / min(us.values()) for us in rows) / len(rows), tile) for tile in tiles)
        found = ", ".join(f"{tile} {mean:.2f}" for mean, tile in means)
        lines.append(f"| {size} | {'yes' if shallow else 'no'} | {found} |")
    if results["left_out"]:
        lines += ["", f"Left out: {'; '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"
