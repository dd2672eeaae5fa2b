"""The measurement as one HTML page: no other file, no script, no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from bigsmall.results.measurement import AU_THRESHOLD, DISCLAIMER, Measurement, Thumbnail
from bigsmall.results.series import (
    BREATH,
    LONG,
    MUSCLES,
    NAMES,
    PULSE,
    Sign,
    averages,
    checks,
    clock,
    excerpt,
    power,
    runs,
    share,
    span,
    thin,
    verdict,
    waveform,
    window_seconds,
)
from bigsmall.results.svg import Chart, ticks

MOST_ROWS = 60  # of the table of what was refused
SIGNS = (PULSE, BREATH)


def page(m: Measurement) -> str:
    """The page of `Measurement.report`."""
    style = resources.files("bigsmall.results").joinpath("report.css").read_text(encoding="utf-8")
    name = escape(str(m.source["name"]))
    seconds, frames = m.source["seconds"], m.source["frames"]
    notes = dict.fromkeys(escape(card["note"]) for card in m.model["cards"] if card.get("note"))
    faces = "".join(_face(face, f"Face {face.face_id}" if m.others else "") for face in m.faces)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{name}: pulse, respiration, action units</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="faint">Pulse, respiration and facial action units, measured from video</p>
<h1>{name}</h1>
<p>{seconds:.1f} s, {frames:,} frames, {m.source["width"]} by {m.source["height"]} pixels</p>
{"".join(f'<p class="faint">{note}</p>' for note in notes)}
</header>
<main>
{faces}
{_origin(m)}
</main>
<footer><p>{escape(DISCLAIMER)}</p></footer>
</body>
</html>
"""


def _face(m: Measurement, title: str) -> str:
    charts = ""
    for sign in SIGNS:
        if sign.trace in m.traces or (m.windows["vital"] == sign.vital).any():
            charts += _wave(m, sign) + _rates(m, sign) + _spectrum(m, sign)
    return f"""<section>
{f"<h2>{title}</h2>" if title else ""}
<div class="verdicts">{_card(m, PULSE)}{_card(m, BREATH)}{_units_card(m)}</div>
{f'<div class="charts">{charts}</div>' if charts else ""}
{_units(m)}
<h2>What was refused, and why</h2>
{_refused(m)}
</section>
"""


def _card(m: Measurement, sign: Sign) -> str:
    reading = sign.reading(m)
    number = (
        '<strong class="refused">refused</strong>'
        if reading.value is None
        else f"<strong>{reading.value:.1f} {escape(reading.unit)}</strong>"
    )
    lines = "".join(f"<p>{escape(line)}</p>" for line in verdict(reading))
    beside = f'<p class="faint">Without a network: {escape(checks(m))}</p>' if sign is PULSE else ""
    low, high = reading.band
    band = f'<p class="faint">Looked for between {low:g} and {high:g} {escape(reading.unit)}</p>'
    return f'<article class="verdict {sign.trace}"><h3>{sign.title}</h3>{number}{lines}{beside}{band}</article>'


def _units_card(m: Measurement) -> str:
    if not m.action_units:
        return ""
    shares = {name: share(m, name) for name in m.action_units}
    active = sorted((name for name, part in shares.items() if part >= 0.005), key=lambda name: -shares[name])
    said = escape(", ".join(f"{name} {100 * shares[name]:.0f} %" for name in active) or "none")
    measured = int(m.frames[list(m.action_units)].notna().all(axis=1).sum())
    if measured:
        lines = f"<strong>{len(active)} of {len(shares)} seen</strong><p>Active, of the time measured: {said}</p>"
    else:
        lines = '<strong class="refused">refused</strong><p>no frame with a face could be measured</p>'
    frames = f'<p class="faint">{measured:,} of {len(m.frames):,} frames measured</p>'
    return f'<article class="verdict unit"><h3>Action units</h3>{lines}{frames}</article>'


def _figure(kind: str, caption: str, chart: Chart | str) -> str:
    return f'<figure class="{kind}"><figcaption>{caption}</figcaption>{chart}</figure>'


def _time_scale(chart: Chart) -> None:
    chart.scale_x(clock if chart.x[1] > LONG else "{:g}".format)


def _lost(chart: Chart, m: Measurement) -> None:
    for start, end in m.lost:
        if end >= chart.x[0] and start <= chart.x[1]:
            chart.shade((start, end), "lost", "no face", _when(start, end))


def _when(start: float, end: float) -> str:
    return f"{clock(start)} to {clock(end)}" if end > LONG else f"{start:.1f} to {end:.1f} s"


def _wave(m: Measurement, sign: Sign) -> str:
    part, others = excerpt(m, sign), sign.others(m)[:1]
    times, values = waveform(m, sign, part)
    kind = _kind(m, sign)
    y = (-9.0, 4.0) if others else (-2.5, 2.5)
    chart = Chart(f"{sign.waveform}, {_when(*part)}", part, y, width=960, left=8)
    _lost(chart, m)
    chart.line(times, values, kind)
    for name in others:  # below, for comparison
        other = m.traces[name].between(*part)
        chart.line(*thin(other.seconds, 0.7 * np.clip(other.values, -4, 4) - 6), name)
    _time_scale(chart)
    missing = "" if np.isfinite(values).any() else ", no waveform"
    return _figure("wide", f"<b>{sign.waveform}</b>{_legend(kind, others)}{missing}, {_when(*part)}", chart)


def _kind(m: Measurement, sign: Sign) -> str:
    """How the network's curve is coloured: not at all where its rate was refused."""
    return "none" if sign.reading(m).value is None else sign.trace


def _legend(kind: str, others: list[str]) -> str:
    if not others:
        return ""
    names = {kind: "network"} | {name: NAMES[name] for name in others}
    return ": " + ", ".join(f'<i class="{kind}">{name}</i>' for kind, name in names.items())


def _rates(m: Measurement, sign: Sign) -> str:
    reading, found = sign.reading(m), runs(m, sign)
    chart = Chart(_rates_in_words(m, sign), span(m), reading.band)
    _lost(chart, m)
    for run in found:
        if run.why is not None:
            chart.shade((run.start, run.end), "refused", run.why, _when(run.start, run.end))
    chart.scale_y(ticks(*reading.band, 6))
    _time_scale(chart)
    for run in found:
        at, kept = run.middle, run.windows
        low, value, high, pos = (kept[column].to_numpy(dtype=float) for column in ("low", "value", "high", "pos"))
        if len(at) == 1:  # a line needs two ends
            at = np.array([run.start, run.end])
            low, value, high, pos = (np.repeat(a, 2) for a in (low, value, high, pos))
        chart.line(at, pos, "pos")
        chart.area(at, low, high, sign.trace)
        chart.line(at, value, sign.trace)
    over = f"{window_seconds(found)}, with their 95 % intervals; shaded: refused" if found else ""
    return _figure("", f"<b>{sign.title}</b>, {escape(reading.unit)}{over}", chart)


def _rates_in_words(m: Measurement, sign: Sign) -> str:
    values = m.windows.loc[m.windows["vital"] == sign.vital, "value"].astype(float)
    if values.isna().all():
        return f"{sign.title} over time: no window was measured"
    unit = sign.reading(m).unit
    known = f"{values.count()} of {len(values)} windows"
    return f"{sign.title} over time: {values.min():.0f} to {values.max():.0f} {unit} in {known}"


def _spectrum(m: Measurement, sign: Sign) -> str:
    reading, others, kind = sign.reading(m), sign.others(m), _kind(m, sign)
    peak = "no peak was accepted" if reading.value is None else f"peak at {reading.value:.1f}"
    chart = Chart(f"Spectrum of the {sign.trace}: {peak}", reading.band, (0.0, 1.2), width=320, left=8)
    if reading.interval is not None:
        chart.block(reading.interval, "interval", said="95 % interval")
    for name in others[::-1]:
        chart.line(*power(m.traces[name], reading.band), name)
    if sign.trace in m.traces:
        rates, height = power(m.traces[sign.trace], reading.band)
        chart.area(rates, 0.0, height, kind)
        chart.line(rates, height, kind)
    if reading.value is not None:
        right = reading.value < np.mean(reading.band)
        chart.write(chart.across(reading.value) + (5 if right else -5), 16, f"{reading.value:.1f}", "peak",
                    "start" if right else "end")  # fmt: skip
    chart.scale_x()
    return _figure("", f"<b>Spectrum</b>, {escape(reading.unit)}{_legend(kind, others)}", chart)


def _units(m: Measurement) -> str:
    """The action units over time, below pictures of the face."""
    measured = m.action_units if m.measured_units else ()
    if not (measured or m.thumbnails):
        return ""
    row, faces = 22, 62 if m.thumbnails else 0
    height = faces + row * len(measured) + 26
    shares = ", ".join(f"{name} active {100 * share(m, name):.0f} % of the time" for name in measured)
    label = f"Action units over time: {shares}" if measured else "The face over time"
    chart = Chart(label, span(m), (0.0, 1.0), width=960, height=height, left=170, top=faces)
    _lost(chart, m)
    for moment in _apart(m.thumbnails, chart):
        chart.parts.append(_picture(moment, chart))
    edges, values = averages(m, 400) if measured else (np.empty(0), np.empty((0, 0)))
    for i, name in enumerate(measured):
        base = faces + row * (i + 1)
        chart.write(chart.left - 8, base - 5, f"{MUSCLES.get(name, '')}  {name}".strip(), "tick", "end")
        line = Chart("", chart.x, (0.0, 1.0), width=960, height=base, left=170, top=base - row + 3, bottom=0)
        steps = np.repeat(values[:, i], 2), np.repeat(edges, 2)[1:-1]
        line.area(steps[1], 0.0, steps[0], "unit")
        for start, end in _active(edges, values[:, i]):
            line.block((start, end), "active", y=(0.18, 0.0), said=f"{name} active, {_when(start, end)}")
        chart.parts += [f'<path class="grid" d="M{chart.left} {base}H{chart.right}"/>', *line.parts]
    _time_scale(chart)
    caption = "<b>Action units</b>: probability from 0 to 1, barred where active"
    return _figure("units", caption if measured else "<b>The face</b>", chart)


def _active(edges: np.ndarray, values: np.ndarray) -> Iterator[tuple[float, float]]:
    on = np.concatenate([[False], np.nan_to_num(values) >= AU_THRESHOLD, [False]]).astype(int)
    for first, end in np.flatnonzero(np.diff(on)).reshape(-1, 2):
        yield float(edges[first]), float(edges[end])


def _apart(thumbnails: tuple[Thumbnail, ...], chart: Chart) -> Iterator[Thumbnail]:
    """Those that do not cover the one before."""
    last = -np.inf
    for thumbnail in thumbnails:
        at = _beside(thumbnail, chart)
        if at - last >= 60:
            yield thumbnail
            last = at


def _beside(moment: Thumbnail, chart: Chart) -> float:
    """Where a picture 56 wide begins: above its moment, and within the chart."""
    return float(np.clip(chart.across(moment.timestamp) - 28, chart.left, chart.right - 56))


def _picture(moment: Thumbnail, chart: Chart) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(moment.rgb).save(data, "JPEG", quality=82)
    at, x = float(chart.across(moment.timestamp)), _beside(moment, chart)
    title = f"the face at {clock(moment.timestamp)}" if chart.x[1] > LONG else f"the face at {moment.timestamp:.1f} s"
    return (
        f'<path class="moment" d="M{at:.1f} 56V{chart.base}"/>'
        f'<image x="{x:.1f}" y="0" width="56" height="56" role="img" aria-label="{title}" '
        f'href="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"><title>{title}</title></image>'
    )


def _refused(m: Measurement) -> str:
    """A table of what was refused, what fell for one reason at one time together."""
    reasons: dict[tuple[str, str], list[str]] = {}

    def add(what: str, start: float, end: float, why: str) -> None:
        reasons.setdefault((_when(start, end), why), []).append(what)

    for start, end in m.lost:
        add("everything", start, end, "no face")
    by_method = {f"heart rate by {NAMES.get(name, name)}": reading for name, reading in m.unsupervised.items()}
    for what, reading in {"heart rate": m.heart_rate, **by_method, "respiration rate": m.respiration_rate}.items():
        if reading.value is None:
            add(what, *span(m), reading.note or "")
    for sign in SIGNS:
        for run in runs(m, sign):
            if run.why is not None:
                count = len(run.windows)
                why = str(run.windows["note"].iloc[0]) if count == 1 else run.why
                add(f"{sign.title.lower()}, {count} window{'s'[: count > 1]}", run.start, run.end, why)
    if not reasons:
        return "<p>Nothing was refused.</p>"
    rows = [(", ".join(what), *reason) for reason, what in reasons.items()]
    body = "".join(
        f'<tr><th scope="row">{escape(what[0].upper() + what[1:])}</th><td class="when">{when}</td>'
        f"<td>{escape(why)}</td></tr>"
        for what, when, why in rows[:MOST_ROWS]
    )
    more = f"<p>and {len(rows) - MOST_ROWS} more; windows.csv has them all</p>" if len(rows) > MOST_ROWS else ""
    head = '<thead><tr><th scope="col">What</th><th scope="col">When</th><th scope="col">Why</th></tr></thead>'
    return f"<table>{head}<tbody>{body}</tbody></table>{more}"


def _origin(m: Measurement) -> str:
    """Where the numbers come from: the video, the networks and their cards."""
    facts: dict[str, Any] = {key: value for key, value in m.source.items() if value is not None}
    facts |= {key: value for key, value in m.model.items() if key != "cards"}
    rows = "".join(
        f'<tr><th scope="row">{escape(key.replace("_", " "))}</th><td>{escape(_said(value))}</td></tr>'
        for key, value in facts.items()
    )
    cards = "".join(
        f"<details><summary>{escape(str(card['name']))}</summary>"
        f"<pre>{escape(json.dumps(card, indent=1, ensure_ascii=False, default=str))}</pre></details>"
        for card in m.model["cards"]
    )
    return f"""<section>
<h2>How this was measured</h2>
<table class="facts"><tbody>{rows}</tbody></table>
<h3>The weights</h3>
{cards}
</section>"""


def _said(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
