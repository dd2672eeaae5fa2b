"""The authors' weights by name: fetched from a server on this machine, checked, cached, resumed; and conversion."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bigsmall import models, weights
from bigsmall.cli import app
from bigsmall.weights import RELEASED, download


class Server(ThreadingHTTPServer):
    """Serves `files`; of each answer only the first `limit` bytes, and whether it says how many they should be;
    `asked` are the paths and ranges in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit: int | None = None
        self.says_length = True
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:][: self.server.limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bigsmall" / "weights"


CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def name(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A released file of a quarter of a megabyte that lies on the server, its SHA-256 known."""
    return _release(monkeypatch, server, CONTENT, sha256=hashlib.sha256(CONTENT).hexdigest())


def _release(patch: pytest.MonkeyPatch, server: Server, content: bytes, **known: str) -> str:
    card = weights.Card("mine", "bigsmall", weights.TASKS, "bigsmall", "square", {"big_size": 16}, licence="MIT")
    server.files["/models/mine.pth"] = content
    released = weights.Released(f"{server.url}/models/mine.pth", len(content), card, **known)
    patch.setitem(RELEASED, "mine", released)
    return "mine"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


# --- what comes -------------------------------------------------------------------------------------------------------


def test_fetched_once_and_whole(name: str, cache: Path, server: Server) -> None:
    told: list[tuple[str, int, int]] = []
    path = download(name, progress=lambda *news: told.append(news))
    assert path == cache / "mine.pth"
    assert path.read_bytes() == CONTENT
    assert files(cache) == ["mine.pth"]
    assert told[-1] == ("mine", len(CONTENT), len(CONTENT))
    assert len(told) > 1
    assert download(name) == weights.cached(name) == path
    assert server.asked == [("/models/mine.pth", "")]


def test_another_file_leaves_nothing(name: str, cache: Path, server: Server) -> None:
    for content in (CONTENT[::-1], CONTENT + b"more", CONTENT[:-1], b"<html>Sign in</html>"):
        server.files["/models/mine.pth"] = content
        with pytest.raises(ValueError, match=r"mine\.pth is not the file that was released"):
            download(name)
        assert files(cache) == []


def test_what_broke_off_is_taken_up(name: str, cache: Path, server: Server) -> None:
    server.limit = 100_000
    with pytest.raises(OSError, match=r"broke off after 100,000 of 256,000|IncompleteRead"):
        download(name)
    assert files(cache) == ["mine.part"]
    with pytest.raises(ValueError, match=r"not here yet"):
        weights.load(name)
    server.limit = None
    assert download(name).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=100000-"]
    assert files(cache) == ["mine.pth"]


def test_answers_that_do_not_say_their_length(name: str, cache: Path, server: Server) -> None:
    server.says_length, server.limit = False, 100_000
    with pytest.raises(OSError, match=r"broke off after 100,000 of 256,000"):
        download(name)
    server.limit = None
    assert download(name).read_bytes() == CONTENT  # the rest, taken up
    (cache / "mine.pth").unlink()
    assert download(name).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=100000-", ""]


def test_a_damaged_file_is_fetched_again(name: str, cache: Path, server: Server) -> None:
    path = download(name)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match=r"not what was released.*fetches it again"):
        weights.cached(name)
    assert download(name).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_no_such_file_and_no_server(name: str, cache: Path, server: Server) -> None:
    del server.files["/models/mine.pth"]
    with pytest.raises(OSError, match=r"mine\.pth answered 404"):
        download(name)
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"could not be fetched.*no network, put the file at .*mine\.pth"):
        download(name)
    assert files(cache) == []


def test_a_server_that_does_not_answer(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _release(monkeypatch, server, CONTENT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mine.pth"
        monkeypatch.setitem(RELEASED, name, dataclasses.replace(RELEASED[name], url=url))
        with pytest.raises(OSError, match=r"could not be fetched \(timed out\)"):
            download(name, timeout=0.1)


def test_put_there_by_hand(name: str, cache: Path, server: Server) -> None:
    cache.mkdir(parents=True)
    (cache / "mine.pth").write_bytes(CONTENT)
    assert download(name) == weights.cached(name) == cache / "mine.pth"
    assert server.asked == []


def test_without_a_known_sha256_the_first_is_recorded(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _release(monkeypatch, server, CONTENT)
    path = download(name)
    assert path.with_suffix(".sha256").read_text() == hashlib.sha256(CONTENT).hexdigest()
    path.unlink()
    server.files["/models/mine.pth"] = CONTENT[::-1]
    with pytest.raises(ValueError, match=r"not the file that was released"):
        download(name)


def test_a_git_blob_id_is_checked(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's own: `printf hello | git hash-object --stdin` gives b6fc4c62..."""
    assert download(_release(monkeypatch, server, b"hello", blob="b6fc4c62")).read_bytes() == b"hello"
    (cache / "mine.pth").unlink()
    server.files["/models/mine.pth"] = b"hullo"
    with pytest.raises(ValueError, match=r"not the file"):
        download("mine")


def test_terms_are_shown_and_accepted_first(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _release(monkeypatch, server, CONTENT, terms="it forbids surveillance")
    with pytest.raises(ValueError, match=r"it forbids surveillance.*--accept-licence"):
        download(name)
    assert server.asked == []
    assert download(name, accept_licence=True).is_file()


# --- the released files -----------------------------------------------------------------------------------------------


def test_the_table_of_released_files() -> None:
    assert len(RELEASED) == 15
    assert all(
        r.url.startswith("https://github.com/") and r.url.endswith(f"{r.card.name}.pth") for r in RELEASED.values()
    )
    assert sum(len(r.sha256) == 64 for r in RELEASED.values()) == 9
    assert {n for n, r in RELEASED.items() if r.terms} == {"bigsmall-fold1", "bigsmall-fold2", "bigsmall-fold3"}
    for name, released in RELEASED.items():
        assert released.card.convention == ("toolbox-pre225" if released.terms else "bigsmall"), name
        models.build(released.card.model, **released.card.options)


def test_released_single_task_files_are_known(reference_dir: Path) -> None:
    found = {r.file: r for r in RELEASED.values() if (reference_dir / "checkpoints" / r.file).exists()}
    assert len(found) >= 3
    for file, released in found.items():
        data = (reference_dir / "checkpoints" / file).read_bytes()
        assert released.fits(data), file
        assert not released.fits(data[:-1] + bytes([data[-1] ^ 1])), file


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("file", "convention"),
    [
        ("BP4D_BigSmall_Multitask_Fold2.pth", "toolbox-pre225"),
        ("BP4D_BigSmall_Multitask_Clip3_Split3_Epoch4.pth", "bigsmall"),
    ],
)
def test_multitask_files_get_their_card(
    prefix: str, file: str, convention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their checksum under any name; where none is known, by their name and size; with and without the prefix."""
    model = models.build("bigsmall")
    torch.save({prefix + key: value for key, value in model.state_dict().items()}, tmp_path / file)
    data = (tmp_path / file).read_bytes()
    name = next(name for name, released in RELEASED.items() if released.file == file)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:8] if RELEASED[name].blob else ""
    monkeypatch.setitem(RELEASED, name, dataclasses.replace(RELEASED[name], size=len(data), blob=blob))
    loaded, card = weights.load_network(tmp_path / file)
    assert (card.convention, card.crop, card.tasks) == (convention, "square", weights.TASKS)
    assert not card.note
    assert torch.equal(loaded.state_dict()["au_fc1.weight"], model.state_dict()["au_fc1.weight"])
    (tmp_path / file).rename(tmp_path / "renamed.pth")
    assert bool(weights.load_network(tmp_path / "renamed.pth")[1].note) == (not blob)


def test_names_as_weights(cache: Path, reference_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"small-heart-split1 are not here yet; `bigsmall weights download"):
        weights.load("small-heart-split1")
    cache.mkdir(parents=True)
    for name in ("small-heart-split1", "big-au-split1"):
        file = RELEASED[name].file
        (cache / file).write_bytes((reference_dir / "checkpoints" / file).read_bytes())
    assert weights.load("small-heart-split1").tasks == ("pulse",)
    assert weights.load("pulse=small-heart-split1,au=big-au-split1").tasks == ("au", "pulse")
    assert set(RELEASED) < set(weights.names())
    with pytest.raises(ValueError, match=r"no released weights are called 'x'"):
        download("x")


# --- conversion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bigsmall", "bigsmall_tsm", "big", "small"])
def test_conversion_keeps_the_outputs_and_the_card(model: str, tmp_path: Path) -> None:
    options = {"small_size": 1, "task": "respiration"} if model == "small" else {"big_size": 16, "out_size": 2}
    network = models.build(model, **options).eval()
    card = weights.Card("mine", model, network.tasks, "exact", "face", options, ("AU06", "AU12"), licence="MIT")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.json").write_text(card.to_json())
    assert weights.convert(tmp_path / "w.pth", tmp_path / "w.safetensors") == card
    loaded, kept = weights.load_network(tmp_path / "w.safetensors")
    assert kept == card
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))
    assert files(tmp_path) == ["w.json", "w.pth", "w.safetensors"]


def test_conversion_that_would_change_the_outputs_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = models.build("small", small_size=1)
    torch.save(network.state_dict(), tmp_path / "w.pth")

    def save_another(path: Path, _: torch.nn.Module, card: weights.Card) -> None:
        weights.save(path, models.build("small", small_size=1), card)

    monkeypatch.setattr(importlib.import_module("bigsmall.weights.convert"), "save", save_another)
    with pytest.raises(ValueError, match=r"other outputs"):
        weights.convert(tmp_path / "w.pth", tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.bin.*\.safetensors"):
        weights.convert(tmp_path / "w.pth", tmp_path / "w.bin")
    assert files(tmp_path) == ["w.pth"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_command(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save(models.build("bigsmall", big_size=16).state_dict(), file)
    name = _release(monkeypatch, server, file.getvalue(), terms="it forbids surveillance")
    run = CliRunner().invoke
    listed = run(app, ["weights", "list"])
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in weights.names())
    assert (refused := run(app, ["weights", "download", name])).exit_code == 2
    assert "it forbids surveillance" in refused.output.replace("\n", " ")
    assert run(app, ["weights", "download", name, "--accept-licence"]).exit_code == 0
    target = tmp_path / "mine.safetensors"
    converted = run(app, ["weights", "convert", name, "-o", str(target)])
    assert converted.exit_code == 0, converted.output
    assert weights.load(target).cards[0].name == "mine"
    assert run(app, ["weights", "convert", "nowhere", "-o", str(target)]).exit_code == 2
