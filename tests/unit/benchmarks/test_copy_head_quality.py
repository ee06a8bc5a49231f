"""The bounds that the copy head is judged by are integrals over all times that are measured."""

import contextlib
import sys
from types import SimpleNamespace
from unittest import mock

import torch

from cascaded_dllm.diffusion.bound import MEASURED_FROM
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.train.objective import Objective
from tests.unit.benchmarks.test_benchmarks import CHECKOUT

with mock.patch.object(sys, "path", [str(CHECKOUT / "benchmarks"), *sys.path]):
    from benchmarks import copy_head_quality as module


def test_bounds_begin_where_all_others_do(monkeypatch):
    """The arms train from a later time on; a bound from there would leave out what it is to bound."""
    asked = []

    def bound(model, objective, dataset, **rest):
        asked.append(objective)
        return SimpleNamespace(nll_nats=torch.tensor([1.0, 2.0]))

    monkeypatch.setattr(module, "dataset_bound", bound)
    objective = Objective(AbsorbingProcess(9), LogLinearSchedule(), t_min=0.01)
    training = SimpleNamespace(averaged_weights=contextlib.nullcontext, model=None, objective=objective, step=3)
    report = mock.Mock()
    module.report_arms(report, [module.Arm("joint", False, training)], None, num_windows=2)
    assert [found.t_min for found in asked] == [MEASURED_FROM]
    assert report.record.call_args.kwargs["bound_nats"] == 1.5
