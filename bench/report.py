"""From the JSON of a run to a table and a picture beside it: `python bench/report.py RESULTS.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def _row_name(row: dict[str, Any]) -> str:
    """ "wtsm, 8clips, 1thread" out of the group and the row's parameters."""
    parameters = (row["name"].partition("[")[2].rstrip("]")).split("-")
    sizes = ("clip", "clips", "video", "thread", "threads")
    return ", ".join([row["group"], *(p for p in parameters if p.endswith(sizes))])


def _share(info: dict[str, Any]) -> str:
    if "share_of_mm" in info:
        return f"{info['share_of_mm']:.0%} of torch.mm"
    return f"{info['share_of_copy']:.0%} of copy_" if "share_of_copy" in info else ""


def _peer(name: str, peer: dict[str, Any]) -> str:
    remark = "" if peer["in_ratio"] else f" (error {peer['error']:.0e})"
    return f"{name} {peer['microseconds']:,.0f}{remark}"


def provenance(run: dict[str, Any]) -> str:
    """When, where and on which commit: from the `datetime`, `machine_info` and `commit_info` of a run."""
    machine = run["machine_info"]
    return (
        f"Measured {run['datetime'][:10]} on {machine['cpu'].get('brand_raw', 'unknown')}, "
        f"{machine['cpu'].get('count', '?')} cores, torch {machine['torch']}, instruction set {machine['isa']}, "
        f"commit {run['commit_info']['id'][:10]}."
    )


def table(run: dict[str, Any]) -> str:
    ceilings = {r["extra_info"]["threads"]: r["extra_info"]["ceilings"] for r in run["benchmarks"]}
    lines = [
        provenance(run),
        "",
        "Ceilings in the same run: "
        + "; ".join(
            f"{threads} thread{'s' * (threads > 1)} "
            + ", ".join(f"{value:.0f} {name}" for name, value in limits.items())
            for threads, limits in sorted(ceilings.items())
        )
        + ".",
        "",
        "Ratio: the best peer's time over ours (above 1: ours is faster), the median over interleaved rounds, its "
        "range. Peers whose error exceeds ten times ours' bound (reduced precision) are shown and take no part. "
        "Microseconds a call. The backward ops' kernel is named reference: PyTorch over the compiled forward ops.",
        "",
        "| row | kernel | ours | frames/s | ratio | range | best peer | share of the ceiling | peers |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["benchmarks"]:
        info = row["extra_info"]
        low, high = info["ratio_range"]
        peers = [_peer(name, peer) for name, peer in info["peers"].items()]
        peers += [f"{name} {reason}" for name, reason in info["missing"].items()]
        frames = f"{info['frames_per_second']:,.0f}" if "frames_per_second" in info else ""
        cells = [
            _row_name(row), info["kernel"], f"{info['microseconds']:,.0f}", frames, f"**{info['ratio']:.2f}**",
            f"{low:.2f}-{high:.2f}", info["best_peer"], _share(info), "; ".join(peers),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(run: dict[str, Any], path: Path) -> None:
    rows = run["benchmarks"][::-1]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.28 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        info = row["extra_info"]
        low, high = info["ratio_range"]
        axes.barh(y, info["ratio"], color="tab:green" if info["ratio"] >= 1 else "tab:red")
        axes.plot([low, high], [y, y], color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [_row_name(row) for row in rows], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the best peer of the same run (line: range over the rounds)")
    figure.savefig(path, dpi=120)


def main(source: Path) -> None:
    run = json.loads(source.read_text())
    source.with_suffix(".md").write_text(table(run))
    picture(run, source.with_suffix(".png"))
    print(table(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
