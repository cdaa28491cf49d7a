"""Where the tests find the local model."""

import os
from pathlib import Path

import pytest
from support.documents import ROOT

from hub.adapters import local_model
from hub.settings import load

FETCHED = Path(os.environ.get("HUBBUB_TEST_MODEL_CACHE") or load({}, os.environ, ROOT).cache_folder)
needs_model = pytest.mark.skipif(
    not local_model.installed(FETCHED, FETCHED), reason="the local model is not here: run `make model` (about 130 MB)"
)
