"""Imports what processes of tests need, once, for `tests.processes`; including what the program imports when needed."""

import datatrove.executor.local
import pytest  # noqa: F401  # test modules define what the processes do
import torch._dynamo  # the first step of an optimizer imports it
import torch.distributed.launcher.api
import typer.testing  # noqa: F401

import cascaded_dllm.assemble
import cascaded_dllm.assemble_preprocess
import cascaded_dllm.cli.main
import tests.unit.train.in_processes  # noqa: F401
