"""What the metrics of a run tell a study."""

import json

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.study.plan import PlannedRun
from cascaded_dllm.study.training import read_course
from cascaded_dllm.train.meter import StepCost


def test_bound_before_the_first_step_is_not_of_the_curve(tmp_path):
    """Of weights that were trained elsewhere; a logarithmic axis has no place for it."""
    lines = [{"step": 0, "bound_nats_per_token": 5.0}, {"step": 2, "bound_nats_per_token": 4.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = compose_config(["model=tiny", "stage=2", "stage_lengths=[4,8]", f"run_dir={tmp_path}"])
    planned = PlannedRun(key="a", stage=2, config=config, cost=StepCost(10, 1.0))
    assert read_course(planned).bound_curve == [(20, 32.0)]
