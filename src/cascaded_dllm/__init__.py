"""Cascaded discrete diffusion language models: texts written in stages, each stage a diffusion model.

The public names are imported when they are first used, so that preprocessing never waits for PyTorch.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if os.name == "nt":
    raise ImportError("cascaded-dllm needs signals that only Linux and macOS have; on Windows, install it in WSL")

if TYPE_CHECKING:
    from cascaded_dllm.assemble.bound import joint_bound
    from cascaded_dllm.assemble.run import assemble_run
    from cascaded_dllm.cascade.select import select_stages
    from cascaded_dllm.cascade.spec import CascadeSpec
    from cascaded_dllm.cli.compose import compose_config
    from cascaded_dllm.data.stages import StageArrays
    from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
    from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
    from cascaded_dllm.errors import CascadeError
    from cascaded_dllm.evaluate.likelihood import JointBound, mean_and_error
    from cascaded_dllm.importance.base import Scorer, Word
    from cascaded_dllm.model.score_config import ScoreModelConfig
    from cascaded_dllm.model.score_model import ScoreModel
    from cascaded_dllm.preprocess.in_process import preprocess_corpus
    from cascaded_dllm.sample.cascade import Cascade
    from cascaded_dllm.sample.control import Control, GivenStage, Pin
    from cascaded_dllm.sample.drawing import Drawing
    from cascaded_dllm.sample.predictors import (
        AncestralPredictor,
        EulerPredictor,
        FirstHittingPredictor,
        RemaskPredictor,
        SurestPredictor,
        TweediePredictor,
    )
    from cascaded_dllm.sample.samples import CascadeSamples
    from cascaded_dllm.sample.token_law import TokenLaw
    from cascaded_dllm.text.corpora import open_corpus
    from cascaded_dllm.text.corpus import Corpus
    from cascaded_dllm.text.document import Document
    from cascaded_dllm.text.stories import StoryGrammar
    from cascaded_dllm.text.tokenizer import Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "AbsorbingProcess": "diffusion.process",
    "AncestralPredictor": "sample.predictors",
    "Cascade": "sample.cascade",
    "CascadeError": "errors",
    "CascadeSamples": "sample.samples",
    "CascadeSpec": "cascade.spec",
    "Control": "sample.control",
    "Corpus": "text.corpus",
    "Document": "text.document",
    "Drawing": "sample.drawing",
    "EulerPredictor": "sample.predictors",
    "FirstHittingPredictor": "sample.predictors",
    "GeometricSchedule": "diffusion.schedule",
    "GivenStage": "sample.control",
    "JointBound": "evaluate.likelihood",
    "LogLinearSchedule": "diffusion.schedule",
    "Pin": "sample.control",
    "RemaskPredictor": "sample.predictors",
    "ScoreModel": "model.score_model",
    "ScoreModelConfig": "model.score_config",
    "Scorer": "importance.base",
    "StageArrays": "data.stages",
    "StoryGrammar": "text.stories",
    "SurestPredictor": "sample.predictors",
    "TokenLaw": "sample.token_law",
    "Tokenizer": "text.tokenizer",
    "TweediePredictor": "sample.predictors",
    "UniformProcess": "diffusion.process",
    "Word": "importance.base",
    "assemble_run": "assemble.run",
    "compose_config": "cli.compose",
    "joint_bound": "assemble.bound",
    "mean_and_error": "evaluate.likelihood",
    "open_corpus": "text.corpora",
    "preprocess_corpus": "preprocess.in_process",
    "select_stages": "cascade.select",
}

__all__ = [
    "AbsorbingProcess",
    "AncestralPredictor",
    "Cascade",
    "CascadeError",
    "CascadeSamples",
    "CascadeSpec",
    "Control",
    "Corpus",
    "Document",
    "Drawing",
    "EulerPredictor",
    "FirstHittingPredictor",
    "GeometricSchedule",
    "GivenStage",
    "JointBound",
    "LogLinearSchedule",
    "Pin",
    "RemaskPredictor",
    "ScoreModel",
    "ScoreModelConfig",
    "Scorer",
    "StageArrays",
    "StoryGrammar",
    "SurestPredictor",
    "TokenLaw",
    "Tokenizer",
    "TweediePredictor",
    "UniformProcess",
    "Word",
    "__version__",
    "assemble_run",
    "compose_config",
    "joint_bound",
    "mean_and_error",
    "open_corpus",
    "preprocess_corpus",
    "select_stages",
]


def __getattr__(name: str) -> Any:
    """The public object `name`, imported from its module at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
