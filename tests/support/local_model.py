"""Where the tests find the local model."""

import os
from pathlib import Path

import pytest
from support.documents import ROOT

from hub.adapters import local_model

FETCHED = Path(os.environ.get("HUBBUB_TEST_MODEL_DATA") or ROOT / "data")
needs_model = pytest.mark.skipif(
    not local_model.installed(FETCHED), reason="the local model is not here: run `make model` (about 130 MB)"
)
