"""`bigsmall prepare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .common import BROKEN, app, err, out, sentences


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="simulator, folder (your own videos), bp4d_plus, ubfc_rppg, pure, disfa or scamps.")
    ],
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROOT] [KEY=VALUE]...", help="Where it lies (the simulator: nowhere); its options."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of prepared files; what it holds is not made again.")
    ] = Path("prepared"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores.")] = None,
    verify: Annotated[bool, typer.Option(help="Compare the files that are there with their checksums.")] = False,
) -> None:
    """Turn a dataset into the files that training and evaluation read, every recording processed or accounted for.

    Options of videos, among others: crop=face:2.2, convention=exact, n_segment=3, big_every=1, frames=[72,36],
    labels=linspace.
    """
    with sentences():
        from bigsmall.datasets import PrepareError
        from bigsmall.datasets import prepare as run

        spec = {"dataset": dataset, **_options(given or [])}
        try:
            manifest = run(spec, output, workers=workers, verify=verify)
        except PrepareError as error:
            if error.manifest is None:
                err.print(f"bigsmall: {escape(str(error))}")
                raise typer.Exit(BROKEN) from error
            manifest = error.manifest
    listed = json.loads(manifest.read_text(encoding="utf-8"))["recordings"]
    by = {status: [entry for entry in listed if entry["status"] == status] for status in ("done", "skipped", "failed")}
    for status in ("skipped", "failed"):
        for entry in by[status]:
            out.print(f"{status}: {escape(entry['name'])}: {escape(entry['reason'])}", soft_wrap=True)
    for entry in by["done"]:
        for note in entry["notes"]:
            out.print(f"note: {escape(entry['name'])}: {escape(note)}", soft_wrap=True)
    drifts = {(e["name"], label): abs(of["ratio"] - 1) for e in by["done"] for label, of in e.get("drift", {}).items()}
    if drifts:
        name, label = most = max(drifts, key=lambda key: drifts[key])
        told = f"labels' clocks: at most {100 * drifts[most]:.2f} % off the videos' (the {label} of {name})"
        out.print(f"{escape(told)}; all in the manifest", soft_wrap=True)
    counts = f"{len(by['done'])} prepared, {len(by['skipped'])} skipped, {len(by['failed'])} failed"
    out.print(f"{counts}; written: {escape(str(manifest))}", soft_wrap=True)
    if by["failed"]:
        raise typer.Exit(BROKEN)


def _options(given: list[str]) -> dict[str, Any]:
    """ROOT, if the first is one, and KEY=VALUE as YAML has values."""
    from omegaconf import OmegaConf

    root = given[:1] if given and ("=" not in given[0] or Path(given[0]).exists()) else []
    options: Any = OmegaConf.create({"root": str(Path(root[0]).absolute())} if root else {})
    for text in given[len(root) :]:
        wrong = f"{text!r} is no option, expected KEY=VALUE with a value as in YAML"
        if "=" not in text:
            raise ValueError(wrong)
        try:
            options = OmegaConf.merge(options, OmegaConf.from_dotlist([text]))
        except Exception as error:  # YAML's and OmegaConf's have no base in common
            raise ValueError(wrong) from error
    made: Any = OmegaConf.to_container(options)
    return dict(made)
