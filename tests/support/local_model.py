"""Find the local model for the tests."""

import os
from pathlib import Path

import pytest
from support.documents import ROOT

from hub.adapters import local_model
from hub.setting_sources import load_settings

FETCHED = Path(os.environ.get("HUBBUB_TEST_MODEL_CACHE") or load_settings({}, os.environ, ROOT).cache_folder)
needs_model = pytest.mark.skipif(
    not local_model.is_installed(FETCHED, FETCHED),
    reason="the local model is not installed: run `make model` (about 130 MB)",
)
