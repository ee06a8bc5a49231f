"""What the metrics of a run tell a study."""

import json
from types import SimpleNamespace

from cascaded_dllm.study.training import read_course


def test_bound_before_the_first_step_is_not_of_the_curve(tmp_path):
    """Of weights that were trained elsewhere; a logarithmic axis has no place for it."""
    lines = [{"step": 0, "bound_nats_per_token": 5.0}, {"step": 2, "bound_nats_per_token": 4.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = SimpleNamespace(run_dir=tmp_path, stage_lengths=(4, 8))
    planned = SimpleNamespace(config=config, stage=2, cost=SimpleNamespace(token_forwards=10))
    assert read_course(planned).bound_curve == [(20, 32.0)]
