"""What all tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The authors' numbers, weights and clips, which lie beside the checkout and never in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("no ../shared/reference beside the checkout: nothing to compare with")
    return folder
