"""The authors' files, from where they host them into the user's cache: checked, resumed, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .released import RELEASED, Released

_BLOCK = 1 << 16

Progress = Callable[[str, int, int], None]


def cache_folder() -> Path:
    """Where downloaded weights are kept: `bigsmall/weights` in XDG_CACHE_HOME, or where the platform keeps caches."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not home:
        home = {
            "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"),
            "darwin": "~/Library/Caches",
        }.get(sys.platform, "~/.cache")
    return Path(home).expanduser() / "bigsmall" / "weights"


def cached(name: str) -> Path:
    """The file of a released name in the cache.

    Raises:
        ValueError: no such name; or its file is not there yet, or damaged.
    """
    released = _released(name)
    path = cache_folder() / released.file
    if not path.is_file():
        raise ValueError(f"the weights {name} are not here yet; `bigsmall weights download {name}` fetches them")
    if not _right(released, path, path):
        raise ValueError(f"{path} is not what was released; `bigsmall weights download {name}` fetches it again")
    return path


def download(
    name: str, *, accept_licence: bool = False, progress: Progress = lambda *_: None, timeout: float = 30.0
) -> Path:
    """Fetch a released file into the cache, unless it is there; one that was begun is taken up.

    Its size is checked, and its checksum where one is known (`Released.known`); where not, the SHA-256 of the first
    download is written beside it and checked from then on.

    Args:
        name: a key of `RELEASED`.
        accept_licence: that the terms of `Released.terms` are accepted, where it has some.
        progress: called with a name, the bytes fetched, and all bytes.
        timeout: seconds without an answer after which it gives up.
    Raises:
        ValueError: no such name, terms that are not accepted, or a file that is not the released one (none is kept).
        OSError: the server cannot be reached or does not have it, or the transfer broke off (the part is kept).
    """
    released = _released(name)
    if released.terms and not accept_licence:
        raise ValueError(
            f"{name} comes under the {released.card.licence}: {released.terms}. "
            "To accept it: --accept-licence, or accept_licence=True"
        )
    path = cache_folder() / released.file
    if path.is_file() and _right(released, path, path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        _fetch(released, part, lambda done: progress(name, done, released.size), timeout)
    except HTTPError as error:
        raise OSError(f"{released.url} answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{released.url} could not be fetched ({getattr(error, 'reason', error)}); the same command takes it up. "
            f"Where there is no network, put the file at {path}"
        ) from error
    if not _right(released, part, path):
        part.unlink()
        raise ValueError(f"{released.url} is not the file that was released: its checksum or size is another")
    if not released.sha256:
        _record(path).write_text(_sha256(part), encoding="ascii")
    os.replace(part, path)
    return path


def _released(name: str) -> Released:
    if name not in RELEASED:
        raise ValueError(f"no released weights are called {name!r}; there are {', '.join(RELEASED)}")
    return RELEASED[name]


def _record(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _right(released: Released, content: Path, path: Path) -> bool:
    """Whether `content` is the released file, and the one that was recorded for `path` when it first came."""
    record = _record(path)
    return released.fits(content.read_bytes()) and (
        not record.is_file() or record.read_text(encoding="ascii") == _sha256(content)
    )


def _fetch(released: Released, part: Path, tell: Callable[[int], None], timeout: float) -> None:
    """Bring `part` to its full size, from what there is of it on."""
    have = part.stat().st_size if part.exists() else 0
    if have >= released.size:  # complete, or not ours; the checksum tells
        return
    request = Request(released.url, headers={"User-Agent": "bigsmall", **({"Range": f"bytes={have}-"} if have else {})})
    response: HTTPResponse
    with urlopen(request, timeout=timeout) as response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = response.headers.get("Content-Length")  # of this answer, which may be the rest only
        promised = have + int(length) if length else released.size
        with part.open("ab" if resumed else "wb") as file:
            while have <= released.size and (block := response.read(_BLOCK)):
                file.write(block)
                have += len(block)
                tell(have)
    if have < promised:
        raise OSError(f"it broke off after {have:,} of {promised:,} bytes")
