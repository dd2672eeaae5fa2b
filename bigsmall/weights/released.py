"""The files that the authors released: where they lie, how they are recognised, and their cards (FACTS 2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from ..models import TASKS
from .card import Card

_PAPER = "https://github.com/girishvn/BigSmall/raw/main/code/pretrained_models/"
_TOOLBOX = "https://github.com/ubicomplab/rPPG-Toolbox/raw/main/final_model_release/"
_MIT = "MIT, Copyright (c) 2023 Girish Narayanswamy"
_RAIL = "Responsible Artificial Intelligence Source Code License v1.1 (https://www.licenses.ai)"
_RAIL_TERMS = (
    "it forbids, among other uses: surveillance; inferring identity, health or membership of a protected class; "
    "synthetic media that do not say so; decisions on insurance; diagnosis without human oversight; predicting crime, "
    "also from heart rate, breathing or faces. Its terms pass on to whatever is derived, a copy of it goes with every "
    "redistribution, and the licensor may end it. Read it at "
    "https://github.com/ubicomplab/rPPG-Toolbox/blob/main/LICENSE"
)


@dataclass(frozen=True)
class Released:
    """A file of the authors'.

    Attributes:
        url: where they host it.
        size: in bytes.
        card: what it is.
        sha256: of its bytes, in full, where it is known.
        blob: the first digits of its git blob id, where they are known.
        terms: what the licence forbids; to be accepted before the file is fetched.
    """

    url: str
    size: int
    card: Card
    sha256: str = ""
    blob: str = ""
    terms: str = ""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    def fits(self, data: bytes) -> bool:
        """Whether these are its bytes, as far as anything of them is known."""
        return (
            len(data) == self.size
            and hashlib.sha256(data).hexdigest().startswith(self.sha256)
            and _blob(data).startswith(self.blob)
        )

    @property
    def known(self) -> bool:
        """Whether a checksum of it is known."""
        return bool(self.sha256 or self.blob)


def _blob(data: bytes) -> str:
    """The id that git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def released_card(file: str, data: bytes) -> Card | None:
    """The card of an authors' file, recognised by its checksum, else by its name and size; None: not one of theirs."""
    found = [r for r in RELEASED.values() if r.fits(data) and (r.known or r.file == file)]
    return replace(found[0].card, details={"sha256": hashlib.sha256(data).hexdigest()}) if found else None


def _single(network: str, split: int, sha256: str) -> Released:
    model, size, task = {
        "Big_AU": ("big", 3_112_885, "au"),
        "Small_Heart": ("small", 2_810_433, "pulse"),
        "Small_Resp": ("small", 2_810_433, "respiration"),
    }[network]
    name = f"BP4D_{network}_Clip3_Split{split}_Epoch4"
    options: dict[str, Any] = {} if model == "big" else {"task": task}
    card = Card(
        name, model, (task,), "bigsmall", "square", options, licence=_MIT,
        source=f"the authors of BigSmall, trained on BP4D+ without split {split}",
    )  # fmt: skip
    return Released(f"{_PAPER}{name}.pth", size, card, sha256)


def _multitask(name: str, part: str, blob: str = "") -> Released:
    toolbox = part.startswith("fold")
    card = Card(
        name, "bigsmall", TASKS, "toolbox-pre225" if toolbox else "bigsmall", "square",
        licence=_RAIL if toolbox else _MIT, source=f"the authors of BigSmall, trained on BP4D+ without {part}",
    )  # fmt: skip
    terms = _RAIL_TERMS if toolbox else ""
    return Released(f"{_TOOLBOX if toolbox else _PAPER}{name}.pth", 8_580_229, card, blob=blob, terms=terms)


RELEASED: dict[str, Released] = {
    "big-au-split1": _single("Big_AU", 1, "aa7e0fa1ec34d5da643a69646b0d17c424cf773b80f72865d460515f995193b3"),
    "big-au-split2": _single("Big_AU", 2, "0afcad5fc6d638872c0ac48d43a8457859f6899a4947d7bc35eaaa650eb59a9c"),
    "big-au-split3": _single("Big_AU", 3, "683d7d8e5320f30e0c0d80f06bc2e7d3617509c93bf9f7bc0241f140dba1bdf1"),
    "small-heart-split1": _single("Small_Heart", 1, "8513bb20412d5d204c1ac6e8c679c78c682948ceb251ce5019d7b10dd8b24006"),
    "small-heart-split2": _single("Small_Heart", 2, "a42451827bd19af8b8125a7c279e61cf0b117970152057524d5e750a53e690ba"),
    "small-heart-split3": _single("Small_Heart", 3, "c9fd011e4e44305994b1b8aa0b94e20e1bc5819f320ab29df173046ff6968f39"),
    "small-resp-split1": _single("Small_Resp", 1, "d6a512b7dda5076d9d68d361f36553319d2b48d34ef0e6390424b316c5dabea0"),
    "small-resp-split2": _single("Small_Resp", 2, "1cafb415a145518f0688db1b326818b25204a299d8fe95e53b0817b15c63cf0c"),
    "small-resp-split3": _single("Small_Resp", 3, "7c74c21bba10f416722dc886d2fd7c5bb33eb1fef6765a1305b86a3cae170d01"),
    "bigsmall-split1": _multitask("BP4D_BigSmall_Multitask_Clip3_Split1_Epoch4", "split 1", "a2827cf9"),
    "bigsmall-split2": _multitask("BP4D_BigSmall_Multitask_Clip3_Split2_Epoch4", "split 2"),
    "bigsmall-split3": _multitask("BP4D_BigSmall_Multitask_Clip3_Split3_Epoch4", "split 3"),
    "bigsmall-fold1": _multitask("BP4D_BigSmall_Multitask_Fold1", "fold 1", "b44a4fd2"),
    "bigsmall-fold2": _multitask("BP4D_BigSmall_Multitask_Fold2", "fold 2", "a43ecc42"),
    "bigsmall-fold3": _multitask("BP4D_BigSmall_Multitask_Fold3", "fold 3", "a2e4c715"),
}
