"""From the JSON of a run to a table and two pictures beside it: `python bench/report.py RESULTS.json`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

Row = dict[str, Any]
AT_MOST = ("extra_mb", "microseconds")  # what a bar is an upper bound of
BARS = {
    "ratio": "{:.2f}x the best peer",
    "share_of_copy": "{:.0%} of a copy's speed",
    "extra_mb": "{:.0f} MB of extra memory",
    "microseconds": "{:.1f} µs",
}
COLOURS = plt.get_cmap("tab10")


def _sizes(row: Row) -> list[str]:
    """ "8clips" and "1thread" out of the row's parameters."""
    parameters = row["name"].partition("[")[2].rstrip("]").split("-")
    return [p for p in parameters if re.fullmatch(r"\d+(clip|clips|video|videos|s|thread|threads)", p)]


def _row_name(row: Row) -> str:
    """ "wtsm, 8clips, 1thread" """
    steps = row["extra_info"].get("steps", 1)
    return ", ".join([row["group"], *_sizes(row)]) + (f" in {steps} steps" if steps > 1 else "")


def _bar(name: str, bar: dict[str, Any]) -> str:
    """What was asked for, and by how much it was missed."""
    form = BARS.get(name, "{:.2f}x " + name)
    asked = f"{'at most ' if name in AT_MOST else ''}{form.format(bar['bar'])}"
    if bar["met"]:
        return f"{asked}: met"
    return f"{asked}: **missed** by {abs(bar['found'] / bar['bar'] - 1):.0%} ({form.format(bar['found'])})"


def _peer(name: str, peer: dict[str, Any], rounds: int) -> str:
    remarks = [] if peer["in_ratio"] else [f"error {peer['error']:.0e}"]
    if peer["rounds"] < rounds:
        remarks.append(f"{peer['rounds']} round{'s' * (peer['rounds'] > 1)}")
    if peer["extra_mb"] is not None and peer["extra_mb"] >= 1:
        remarks.append(f"{peer['extra_mb']:,.0f} MB")
    return f"{name} {peer['microseconds']:,.0f}" + (f" ({', '.join(remarks)})" if remarks else "")


def _cells(row: Row) -> list[str]:
    info = row["extra_info"]

    def found(key: str, form: str) -> str:
        return form.format(info[key]) if info.get(key) is not None else ""

    low, high = info["ratio_range"]
    peers = [_peer(name, peer, info["rounds"]) for name, peer in info["peers"].items()]
    return [
        _row_name(row),
        info["kernel"],
        f"{info['microseconds']:,.0f}",
        found("frames_per_second", "{:,.0f}"),
        found("gflops", "{:,.0f}"),
        found("share_of_arithmetic", "{:.0%}")
        + found("share_of_copy", "{:.0%} of copy_")
        + found("share_of_reading", ", {:.0%} of reading"),
        found("extra_mb", "{:,.1f}"),
        f"**{info['ratio']:.2f}**",
        f"{low:.2f}-{high:.2f}",
        info["best_peer"],
        "; ".join(_bar(name, bar) for name, bar in info["bars"].items()),
        "; ".join(peers + [f"{name}: {reason}" for name, reason in info["missing"].items()]),
    ]


def provenance(run: dict[str, Any]) -> str:
    """When, where and on which commit: from the `datetime`, `machine_info` and `commit_info` of a run."""
    machine, commit = run["machine_info"], run["commit_info"]
    return (
        f"Measured {run['datetime'][:10]} on {machine['cpu'].get('brand_raw', 'unknown')}, "
        f"{machine['cpu'].get('count', '?')} cores, torch {machine['torch']}, instruction set {machine['isa']}, "
        f"commit {commit['id'][:10]}{' with uncommitted changes' * bool(commit.get('dirty'))}."
    )


def table(run: dict[str, Any]) -> str:
    rows = run["benchmarks"]
    ceilings = {r["extra_info"]["threads"]: r["extra_info"]["ceilings"] for r in rows}
    bars = [bar for row in rows for bar in row["extra_info"]["bars"].values()]
    heads = (
        "row", "kernel", "ours, µs", "frames/s", "GFLOP/s", "share of the ceiling", "extra MB", "ratio", "range",
        "best peer", "bar", "peers, µs",
    )  # fmt: skip
    peers = ", ".join(f"{name} {version}" for name, version in run["machine_info"]["peers"].items())
    lines = [
        f"{provenance(run)} Peers: {peers}.",
        "",
        "Ceilings in the same run: "
        + "; ".join(
            f"{threads} thread{'s' * (threads > 1)} "
            + ", ".join(f"{value:.0f} {name}" for name, value in limits.items())
            for threads, limits in sorted(ceilings.items())
        )
        + f". Load before and in the run: at most {max(r['extra_info']['load'] for r in rows):.1f}.",
        "",
        "Ratio: the best peer's time over ours (above 1: ours is faster), the median over interleaved rounds, its "
        "range. Peers whose error exceeds ten times ours' bound (reduced precision) are shown and take no part. A call "
        "of seconds takes part in fewer rounds, which are named. GFLOP/s: of a direct convolution, its share that of "
        f"the {rows[0]['extra_info']['ceiling'].split()[0]} ceiling, which Winograd's may exceed. Extra MB: growth of "
        "peak resident memory in a call beyond inputs, outputs and weights; of ONNX Runtime and OpenVINO, which keep "
        "theirs, in the first one. Of reading: the time of a sum over the frames' bytes, and nothing else, over ours.",
        "",
        f"Bars of the design: {sum(bar['met'] for bar in bars)} of {len(bars)} met.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def ratios(run: dict[str, Any], path: Path) -> None:
    """A panel an op: how many times as fast as the best peer, over the sizes."""
    groups: dict[str, list[Row]] = {}
    for row in run["benchmarks"]:
        groups.setdefault(row["group"], []).append(row)
    columns = 4
    lines = -(-len(groups) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(13, 2.6 * lines), layout="constrained", squeeze=False)
    for panel in panels.flat[len(groups) :]:
        panel.set_axis_off()
    for panel, (group, rows) in zip(panels.flat, groups.items(), strict=False):
        sizes = list(dict.fromkeys(_size(row) for row in rows))
        panel.axhline(1, color="black", linewidth=0.8)
        for threads in sorted({row["extra_info"]["threads"] for row in rows}):
            found = [(sizes.index(_size(r)), r["extra_info"]) for r in rows if r["extra_info"]["threads"] == threads]
            x, y = np.array([at for at, _ in found]) + 0.12 * (threads - 1.5), [i["ratio"] for _, i in found]
            around = np.abs(np.array([i["ratio_range"] for _, i in found]).T - y)
            label = f"{threads} thread{'s' * (threads > 1)}"
            panel.errorbar(x, y, around, fmt="o-", markersize=4, linewidth=1, capsize=2, label=label)
        for at, bar in {(sizes.index(_size(r)), r["extra_info"]["bars"].get("ratio", {}).get("bar")) for r in rows}:
            if bar:
                panel.hlines(bar, at - 0.4, at + 0.4, color="tab:green", linestyle="--", linewidth=1.2)
        panel.set_title(group, fontsize=9)
        panel.set_xticks(range(len(sizes)), sizes, fontsize=7)
        panel.set_xlim(-0.5, len(sizes) - 0.5)
        panel.set_ylim(bottom=0)
        panel.tick_params(axis="y", labelsize=7)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color="tab:green", linestyle="--"))
    figure.legend(handles, [*labels, "the design's bar"], loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.supylabel("times as fast as the best peer of the same run (lines: range over the rounds)", fontsize=9)
    figure.suptitle("Over the number of clips of three frames", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _size(row: Row) -> str:
    found = re.match(r"(\d+)clip", "".join(_sizes(row)[-1:])) or re.search(r"(\d+)clip", row["name"])
    return found[1] if found else ""


def roofline(run: dict[str, Any], path: Path) -> None:
    """A panel for each number of threads: GFLOP/s over operations a byte that must move, ours and the best peer's."""
    rows = [r for r in run["benchmarks"] if "gflops" in r["extra_info"]]
    if not rows:
        return
    groups = list(dict.fromkeys(row["group"] for row in rows))
    counts = sorted({row["extra_info"]["threads"] for row in rows})
    figure, panels = plt.subplots(
        1, len(counts), figsize=(6 * len(counts), 6), layout="constrained", sharey=True, squeeze=False
    )
    intensities = [row["extra_info"]["flops_per_byte"] for row in rows]
    x = np.geomspace(min(1.0, *intensities), 2 * max(intensities), 200)
    for panel, threads in zip(panels.flat, counts, strict=True):
        chosen = [row for row in rows if row["extra_info"]["threads"] == threads]
        limits = chosen[0]["extra_info"]["ceilings"]
        top, slope = limits[chosen[0]["extra_info"]["ceiling"]], limits["copy_ GB/s"]
        panel.plot(x, np.minimum(top, slope * x), color="black", linewidth=1.2)
        panel.text(top / slope, top * 1.05, f"{chosen[0]['extra_info']['ceiling']} {top:,.0f}", fontsize=8)
        panel.text(1.5 * x[0], 1.4 * slope * x[0], f"copy_ {slope:.0f} GB/s", fontsize=8, va="top")
        for row in chosen:
            info, colour = row["extra_info"], COLOURS(groups.index(row["group"]) % 10)
            at, peer = info["flops_per_byte"], info["gflops"] / info["ratio"]
            panel.plot([at, at], [peer, info["gflops"]], color=colour, linewidth=0.6)
            panel.plot(at, info["gflops"], "o", color=colour, markersize=6)
            panel.plot(at, peer, "o", color=colour, markersize=5, fillstyle="none")
        panel.set(xscale="log", yscale="log", title=f"{threads} thread{'s' * (threads > 1)}")
        panel.set_xlabel("operations a byte of inputs, outputs and weights")
        panel.grid(alpha=0.3)
    panels.flat[0].set_ylabel("GFLOP/s of a direct computation")
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=COLOURS(i % 10)) for i in range(len(groups))]
    hollow = plt.Line2D([], [], marker="o", linestyle="", color="black", fillstyle="none")
    figure.legend([*handles, hollow], [*groups, "its best peer"], loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle("Filled: ours, one point for each number of clips. Winograd's savings lift points above the roof.")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(source: Path) -> None:
    run = json.loads(source.read_text())
    source.with_suffix(".md").write_text(table(run))
    ratios(run, source.with_suffix(".png"))
    roofline(run, source.with_name(f"{source.stem}_roofline.png"))
    print(table(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
