"""The results of bench/gpu.py as JSON, as a table, and as a picture where matplotlib is installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

PEERS = ("eager", "compile")


def _best(row: dict[str, Any], peer: bool, graph: bool) -> tuple[str, dict[str, float]] | None:
    """The fastest of the peers or of ours, with or without CUDA graphs."""
    found = {
        name: rates
        for name, rates in row.get("times", {}).items()
        if name.startswith(PEERS) == peer and name.endswith("| graph") == graph
    }
    return min(found.items(), key=lambda item: item[1]["microseconds"]) if found else None


def _compared(row: dict[str, Any], graph: bool) -> str:
    ours, peer = (_best(row, peer, graph) for peer in (False, True))
    if ours is None or peer is None:
        return ""
    own, other = ours[1]["microseconds"], peer[1]["microseconds"]
    return f"**{other / own:.2f}** ({own:,.1f} µs; {peer[0].partition(' |')[0]} {other:,.1f})"


def line(row: dict[str, Any]) -> str:
    """A row in a line, while the run goes on."""
    wrong = [name for name, why in row["missing"].items() if why.startswith("WRONG")]
    remark = f"; WRONG: {', '.join(wrong)}" if wrong else ""
    return f"{row['op']}, {row['size']}, {row['dtype']}: {_compared(row, True)}{remark}"


def _rates(row: dict[str, Any]) -> list[str]:
    best = _best(row, False, True) or _best(row, False, False)
    if best is None:
        return ["none of ours was right", "", "", ""]
    rates = best[1]
    cells = [best[0].partition(" |")[0]]
    for value, share in (("GB/s", "share of copy"), ("TFLOP/s", "share of product")):
        cells.append(f"{rates[value]:,.1f} ({rates[share]:.0%})" if value in rates else "")
    return [*cells, f"{rates['frames/s']:,.0f}" if "frames/s" in rates else ""]


def heading(results: dict[str, Any]) -> str:
    """When, where and of what a suggestion was measured."""
    what = "A DRY RUN: no measurement. " if results["dry_run"] else ""
    return f"{what}{results['date'][:10]}, {results['device']}, commit {results['commit']}."


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    what = "A DRY RUN: no measurement. " if results["dry_run"] else ""
    commit = f"{results['commit'] or 'unknown'}{' with uncommitted changes' if results['uncommitted'] else ''}"
    lines = [
        f"{what}{results['date'][:10]}, {results['device']} (capability {results['capability']}, driver "
        f"{results['driver']}), torch {results['torch']}, CUDA {results['cuda']}, Triton {results['triton']}, commit "
        f"{commit}. CUDA library: {results['cuda_library']}.",
        "",
        "Ceilings of the same run: "
        + ", ".join(f"{value:,.1f} {name}" for name, value in results.get("ceilings", {}).items())
        + ".",
        "",
        "Ratios: the fastest peer's time (eager in either layout, torch.compile) over our fastest; above 1 ours is "
        "faster. Medians of interleaved rounds. GB/s and TFLOP/s are of our fastest, with their shares of the "
        "ceilings; what fits in the caches may exceed the copy's.",
        "",
        "| op | size | dtype | in CUDA graphs | without | ours | GB/s | TFLOP/s | frames/s | not timed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        missing = "; ".join(f"{name}: {why}" for name, why in row["missing"].items() if why != "not asked for")
        ratios = (_compared(row, graph) for graph in (True, False))
        cells = [row["op"], row["size"], row["dtype"], *ratios, *_rates(row), missing]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    if results.get("left_out"):
        lines += ["", f"Left out: {'; '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"


def picture(results: dict[str, Any], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for row in results["rows"]:
        ours, peer = (_best(row, peer, True) for peer in (False, True))
        if ours and peer:
            ratio = peer[1]["microseconds"] / ours[1]["microseconds"]
            bars.append((f"{row['op']}, {row['size']}, {row['dtype']}", ratio))
    if not bars:
        return
    labels, ratios = zip(*bars[::-1], strict=True)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(bars)), layout="constrained")
    axes.barh(labels, ratios, color=["tab:green" if ratio >= 1 else "tab:red" for ratio in ratios])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel(f"times as fast as the best peer, both in CUDA graphs, on {results['device']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(name: str, results: dict[str, Any], text: str, folder: Path | None) -> None:
    """NAME.json of the results and NAME.md of their table, each whole; without a folder the table is printed."""
    if folder is None:
        print(text)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in ((".json", json.dumps(results, indent=1) + "\n"), (".md", text)):
        aside = folder / f".{name}{suffix}"
        aside.write_text(content)
        os.replace(aside, folder / f"{name}{suffix}")
