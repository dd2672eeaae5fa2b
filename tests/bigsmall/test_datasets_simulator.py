"""Simulated people as a dataset."""

import numpy as np
import pytest
import torch

import bigsmall_kernels as bk
from bigsmall.datasets.simulator import DEFAULTS, crop, draw, jobs, pictures, simulation

SMALL = {
    "seconds": 3,
    "n_segment": 3,
    "compressed": 0,
    "simulator": {"fps": [12, 15], "size": [64, 80], "expressions": [40, 40]},
}
SIGNALS = ("bvp", "respiration", "bvp_wave", "respiration_wave", "heart_rate", "respiration_rate")
PIECES = SMALL | {"pieces": 2, "clips": 3, "big": 2}


def made(spec, index=0):
    return jobs(spec)[index].make()


def same(a, b):
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def test_pieces_of_a_video():
    arrays, meta = made(PIECES | {"frames": [9]})
    forms = {name: (a.shape, str(a.dtype)) for name, a in arrays.items()}
    assert forms == {
        "small": ((18, 3, 9, 9), "float16"),
        "big": ((4, 144, 144, 3), "uint8"),
        "big_frame": ((4,), "int64"),
        "frames_9": ((18, 9, 9, 3), "uint8"),
        "stretches": ((3,), "int64"),
        "timestamps": ((18,), "float64"),
        "au": ((18, 12), "uint8"),
        **dict.fromkeys(SIGNALS, ((18,), "float32")),
    }
    assert arrays["stretches"].tolist() == [0, 9, 18]
    assert set(arrays["big_frame"] % 3) == {0}
    assert {0, 9} <= set(arrays["big_frame"].tolist())  # the chosen moments are always seen
    assert meta["crop"] == "face:2.2"


def test_a_whole_video_is_what_the_inputs_op_makes_of_it():
    spec = SMALL | {"scale": [1, 1], "shift": 0}
    arrays, meta = made(spec)
    video, rng = simulation({**DEFAULTS, **spec, "simulator": {**DEFAULTS["simulator"], **spec["simulator"]}}, 0)
    length = (len(video) - 1) // 3 * 3
    assert arrays["stretches"].tolist() == [0, length]
    frames = torch.from_numpy(np.stack(list(video)))[: length + 1]
    big, small = bk.bigsmall_inputs(frames, crop({**DEFAULTS, **spec}, video, rng))
    np.testing.assert_array_equal(arrays["small"], small.numpy().astype(np.float16))
    shown = torch.from_numpy((arrays["big"] - meta["big_mean"]) / meta["big_std"]).permute(0, 3, 1, 2)
    assert (shown - big).abs().max() <= 0.51 / meta["big_std"]  # rounded to uint8
    assert arrays["big_frame"].tolist() == list(range(0, length, 3))


def test_targets_are_differences_normalised_over_the_whole_video():
    spec = PIECES | {"no_pulse": 0, "no_breathing": 0}
    arrays, _ = made(spec)
    video, _ = simulation({**DEFAULTS, **spec, "simulator": {**DEFAULTS["simulator"], **spec["simulator"]}}, 0)
    for name, wave in (("bvp", video.truth.bvp), ("respiration", video.truth.respiration)):
        step = np.diff(wave)
        windows = np.lib.stride_tricks.sliding_window_view((step / step.std()).astype(np.float32), 9)
        (begin,) = np.flatnonzero(np.isclose(windows, arrays[name][:9], atol=1e-5).all(axis=1))
        np.testing.assert_array_equal(arrays["au"][:9], video.truth.aus[begin : begin + 9])
        np.testing.assert_array_equal(arrays[f"{name}_wave"][:9], wave[begin : begin + 9].astype(np.float32))


def test_what_is_missing_is_a_zero_target():
    still, _ = made(PIECES | {"no_pulse": 1, "no_breathing": 1})
    assert not still["bvp"].any()
    assert not still["respiration"].any()
    assert np.isnan(still["heart_rate"]).all()


def test_a_person_is_its_seed():
    first, second = (made(PIECES, index)[0] for index in (0, 1))
    assert same(first, made(PIECES, 0)[0])
    assert not np.array_equal(first["small"], second["small"])
    assert not np.array_equal(first["small"], made(PIECES | {"seed": 1})[0]["small"])


def test_some_videos_are_compressed():
    plain, (lossy, meta) = made(PIECES)[0], made(PIECES | {"compressed": 1, "crf": [30, 30]})
    assert meta["crf"] == 30
    assert not np.array_equal(plain["small"], lossy["small"])


def test_a_video_too_short_for_its_pieces():
    with pytest.raises(ValueError, match="clips was 30"):
        made(PIECES | {"clips": 30})


def test_the_crop_is_about_the_policys():
    video, rng = simulation({**DEFAULTS, **SMALL, "simulator": {**DEFAULTS["simulator"], **SMALL["simulator"]}}, 3)
    x, y, w, h = video.box
    left, top, side, other = crop({"crop": "face:1.2", "scale": [1, 1], "shift": 0}, video, rng).tolist()
    assert side == other == pytest.approx(1.2 * max(w, h))
    assert (left + side / 2, top + side / 2) == pytest.approx((x + w / 2, y + h / 2))
    for _ in range(50):
        left, top, side, _ = crop({"crop": "face:3", "scale": [0.5, 1.5], "shift": 0.3}, video, rng).tolist()
        assert min(left, top) >= 0
        assert max(left, top) + side <= video.size[0] + 1e-9


def test_pictures_are_averages_of_areas():
    frames = torch.randint(0, 256, (4, 24, 32, 3), dtype=torch.uint8)
    box = torch.tensor([4.0, 0.0, 24.0, 24.0], dtype=torch.float64)
    expected = frames[:, :, 4:28].view(4, 6, 4, 6, 4, 3).float().mean((2, 4)).round().to(torch.uint8)
    np.testing.assert_array_equal(pictures(frames, box, 6), expected.numpy())
    np.testing.assert_array_equal(pictures(frames, box.expand(4, 4), 6), expected.numpy())


def test_ranges():
    rng = np.random.default_rng(0)
    even = [draw([2, 8], rng) for _ in range(2000)]
    log = [draw({"log": [2, 8]}, rng) for _ in range(2000)]
    either = np.array([draw({"any": [[0, 0], {"log": [2, 8]}]}, rng) for _ in range(2000)])
    assert min(*even, *log) >= 2
    assert max(*even, *log) <= 8
    assert np.median(even) == pytest.approx(5, abs=0.2)
    assert np.median(log) == pytest.approx(4, abs=0.2)
    assert (either == 0).mean() == pytest.approx(0.5, abs=0.05)
