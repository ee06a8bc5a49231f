"""A study has one judge of a name."""

import pytest
from safetensors.torch import load_file, save_file

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.judging import load_judge
from tests.unit.evaluate.tiny_judge import save_judge

pytest.importorskip("transformers", reason="the extra eval is not installed")


def test_another_judge_of_the_same_name(tmp_path):
    folder, source = StudyFolder(tmp_path / "study"), save_judge(tmp_path / "judge")
    first = load_judge(folder, str(source)).fingerprint()
    assert load_judge(folder, str(source)).fingerprint() == first
    weights = load_file(source / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"is not the one that has read texts of this study .* another"):
        load_judge(folder, str(source))
    # Under another name it is another judge.
    moved = source.rename(tmp_path / "other")
    assert load_judge(folder, str(moved)).fingerprint() != first
