"""bigsmall.inputs: a video in pieces gives the same inputs as the whole video in one call."""

import weakref

import numpy as np
import pytest
import torch

import bigsmall_kernels as bk
from bigsmall import inputs
from bigsmall.inputs import InputPieces, InputSums

CONVENTIONS = ("exact", "bigsmall", "toolbox", "toolbox-pre225")
SIZES = {"big_size": 24, "small_size": 6}


def video(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n frames, and a box that moves twice."""
    rng = np.random.default_rng(seed)
    boxes = np.array([(4, 3, 30, 32), (6.5, 2.25, 28.5, 30), (0, 0, 48, 40)])[np.arange(n) * 3 // max(n, 1)]
    return rng.integers(0, 256, (n, 40, 48, 3), np.uint8), boxes


def pieces(crops, stats: bk.InputStats, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All that InputPieces gives for the frames and boxes of one stretch."""
    maker = InputPieces(stats, **options)
    made = [maker.add(*crop) for crop in crops]
    return [piece for piece in (*made, maker.cut()) if piece is not None]


def whole(frames: np.ndarray, boxes: np.ndarray, **options) -> tuple[torch.Tensor, torch.Tensor]:
    return bk.bigsmall_inputs(torch.from_numpy(frames), torch.from_numpy(boxes), **SIZES, **options)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("n", [4, 21, 23])
@pytest.mark.parametrize("n_segment", [1, 3])
@pytest.mark.parametrize("piece", [1, 9])
def test_two_bounded_passes_are_one_call(monkeypatch, convention, n, n_segment, piece):
    frames, boxes = video(n)
    monkeypatch.setattr(inputs, "PIECE_BYTES", piece * frames[0].nbytes)
    sums = InputSums(big_size=SIZES["big_size"], convention=convention)
    for rgb, box in zip(frames, boxes, strict=True):
        sums.add(rgb, box)
    stats = sums.stats()
    for all_big in (False, True):
        options = {"n_segment": n_segment, "convention": convention, "all_big": all_big}
        made = pieces(zip(frames, boxes, strict=True), stats, **SIZES, **options)
        assert all(len(small) % n_segment == 0 for _, small in made)
        if n >= 20:
            assert len(made) > 1
        got = map(torch.cat, zip(*made, strict=True))
        for piecewise, expected in zip(got, whole(frames, boxes, **options), strict=True):
            torch.testing.assert_close(piecewise, expected, rtol=1e-6, atol=1e-6)


def test_statistics_can_be_asked_for_on_the_way():
    frames, boxes = video(12)
    sums = InputSums(big_size=24)
    for t, (rgb, box) in enumerate(zip(frames, boxes, strict=True)):
        sums.add(rgb, box)
        if t in (4, 11):
            first = torch.from_numpy(frames[: t + 1]), torch.from_numpy(boxes[: t + 1])
            rows = bk.bigsmall_input_sums(*first, big_size=24)
            assert sums.stats() == pytest.approx(bk.InputStats.from_sums(rows, big_size=24), rel=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("n", range(3, 20))
def test_the_last_piece_may_be_as_short_as_it_likes(monkeypatch, convention, n):
    frames, boxes = video(n)
    monkeypatch.setattr(inputs, "PIECE_BYTES", 9 * frames[0].nbytes)
    sums = InputSums(big_size=24, convention=convention)
    for rgb, box in zip(frames, boxes, strict=True):
        sums.add(rgb, box)
    options = {"big_size": 24, "convention": convention}
    rows = bk.bigsmall_input_sums(torch.from_numpy(frames), torch.from_numpy(boxes), **options)
    assert sums.stats() == pytest.approx(bk.InputStats.from_sums(rows, **options), rel=1e-12)


def test_no_difference_is_taken_across_a_cut():
    frames, boxes = video(11)
    frames[5:] //= 4
    sums = InputSums(big_size=24)
    for t, (rgb, box) in enumerate(zip(frames, boxes, strict=True)):
        if t in (5, 9):
            sums.cut()
        sums.add(rgb, box)
    sums.cut()  # leaves out the last stretch, two frames long
    parts = [(torch.from_numpy(frames[a:b]), torch.from_numpy(boxes[a:b])) for a, b in ((0, 5), (5, 9))]
    rows = torch.cat([bk.bigsmall_input_sums(*part, big_size=24) for part in parts])
    assert sums.stats() == pytest.approx(bk.InputStats.from_sums(rows, big_size=24), rel=1e-12)


def test_memory_is_bounded_by_the_piece_not_by_the_video(monkeypatch):
    monkeypatch.setattr(inputs, "PIECE_BYTES", 8 * 40 * 48 * 3)
    frames, boxes = video(1)
    sums, made = InputSums(big_size=24), []

    def crops():
        for _ in range(40):
            rgb = frames[0].copy()
            made.append(weakref.ref(rgb))
            assert sum(ref() is not None for ref in made) <= 10
            yield rgb, boxes[0]
            del rgb

    for crop in crops():
        sums.add(*crop)
    stats = sums.stats()
    del sums, crop
    maker = InputPieces(stats, **SIZES)
    n = sum(len(piece[1]) for piece in (maker.add(*crop) for crop in crops()) if piece is not None)
    n += len(maker.cut()[1])
    assert n == 39


def test_too_few_frames_and_boxes_outside_are_errors():
    frames, boxes = video(4)
    with pytest.raises(ValueError, match="T >= 2"):
        InputSums().stats()
    one = InputSums(convention="bigsmall")
    for t in range(2):
        one.add(frames[t], boxes[t])
    with pytest.raises(ValueError, match="T >= 3"):
        one.stats()
    stats = bk.InputStats(1.0, 1.0, 1.0)
    for short in range(3):
        assert pieces([(rgb, boxes[0]) for rgb in frames[:short]], stats) == []
    with pytest.raises(ValueError, match="boxes must lie inside"):
        pieces([(rgb, (40, 30, 20, 20)) for rgb in frames], stats)
    with pytest.raises(ValueError, match="boxes must lie inside"):
        pieces([(rgb, (-1, 0, 20, 20)) for rgb in frames], stats)
