"""Imports what processes of tests need, once, for `tests.processes`; including what the program imports when needed."""

import importlib

NAMES = (
    "cascaded_dllm.assemble.run",
    "cascaded_dllm.assemble.preprocess",
    "cascaded_dllm.cli.evaluate",
    "cascaded_dllm.cli.main",
    "cascaded_dllm.cli.preprocess",
    "cascaded_dllm.cli.train",
    "datatrove.executor.local",
    "pytest",  # test modules define what the processes do
    "tests.unit.train.in_processes",
    "torch._dynamo",  # the first step of an optimizer imports it
    "torch.distributed.launcher.api",
    "typer.testing",
)

for name in NAMES:
    importlib.import_module(name)
