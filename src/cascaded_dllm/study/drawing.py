"""Texts of an arm, drawn in one way, with their figures."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from cascaded_dllm.cascade.provenance import provenance
from cascaded_dllm.data.dataset import evenly_spaced
from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.errors import ConfigError, StoppedError
from cascaded_dllm.evaluate.figures import Figure, described, share_figure, stage_figures
from cascaded_dllm.evaluate.generative_ppl import PPL_DEFINITIONS, Judge
from cascaded_dllm.evaluate.sample_figures import MeasuredTexts, Measures, sample_figures
from cascaded_dllm.evaluate.text_features import judge_features
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.completing import draw_missing
from cascaded_dllm.sample.drawing import Drawing, drawing_of_options, options_among
from cascaded_dllm.sample.output import SampleRun, StoredSamples
from cascaded_dllm.sample.settings import RunSettings, SampleSettings
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.measuring import SharedWindows, load_arm
from cascaded_dllm.study.plan import PlannedArm
from cascaded_dllm.study_config import DrawingSettings, StudySettings, require_known
from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.tokenizer import Tokenizer

_TEXTS_SHOWN = 4


def require_sound_drawings(study: StudySettings) -> None:
    """Checks all that can be checked of the drawings before anything is trained.

    Raises:
        ConfigError: a number is out of range, a predictor is unknown or does not take a setting, a list has neither one
            entry nor one for each stage, or there is no figure of a name.
    """
    num_stages = len(study.lengths)
    for settings in study.sampling:
        try:
            _drawing_of_stages(settings, 0).plans(num_stages)
        except ConfigError as error:
            raise ConfigError(f"drawing {settings.name}: {error}") from error
    stages = {number: torch.zeros(0, length, dtype=torch.int64) for number, length in enumerate(study.lengths, 1)}
    figures = sample_figures(MeasuredTexts((), (), (), stages))
    known = [*(figure.name for figure in figures), "accepted_share"]
    if study.judge is not None:
        known += [*PPL_DEFINITIONS, "num_judged_tokens", "mauve", "mauve_num_clusters"]
    require_known("figure", study.figures or (), known)


def drawing_of(settings: DrawingSettings, arm: PlannedArm) -> Drawing:
    """How the texts of an arm are drawn.

    A flat model writes texts of the last length, so where stages differ it takes the values of the last one.
    """
    drawing = _drawing_of_stages(settings, arm.seed)
    if len(arm.stages) > 1 or drawing.num_entries == 1:
        return drawing
    return drawing.of_stages(drawing.num_entries, slice(-1, None))


def _drawing_of_stages(settings: DrawingSettings, seed: int) -> Drawing:
    """How the texts of all stages are drawn."""
    return drawing_of_options(options_among(asdict(settings) | {"seed": seed}))


def drawing_key(study: StudySettings, arm: PlannedArm, settings: DrawingSettings, reference: str) -> str:
    """Fingerprint of all that decides the figures of an arm's texts."""
    drawing = drawing_of(settings, arm).described()
    others = {"num_samples": settings.num_samples, "judge": study.judge, "figures": study.figures and [*study.figures]}
    return fingerprint({"runs": [run.key for run in arm.stages], "drawing": drawing, "reference": reference, **others})


def draw(
    study: StudySettings,
    arm: PlannedArm,
    settings: DrawingSettings,
    windows: SharedWindows,
    judge: Judge | None,
    folder: StudyFolder,
    callbacks: StudyCallbacks,
) -> dict[str, Any]:
    """Draws the missing texts, measures all texts, and returns the content of their record.

    Raises:
        StoppedError: it is time to stop; finished batches are kept.
        CascadeError: weights cannot be read, memory is short, or a file cannot be written.
    """
    cascade = load_arm(arm)
    drawing = drawing_of(settings, arm)
    cascade.require_drawable(drawing)
    run = _sample_run(arm, settings, cascade, drawing, folder)
    with run.lock(callbacks.raise_if_stopping):
        samples = _complete(run, cascade, settings, callbacks, f"texts of {arm.name}, {settings.name}")
    texts = MeasuredTexts.of_stages(dict(enumerate(samples.ids, start=1)), cascade.tokenizer)
    real = real_texts(windows, settings.num_samples)
    figures = _figures(texts, real, judge, arm)
    if windows.grammar is not None:
        figures.append(_accepted(samples, windows.grammar, cascade.tokenizer))
    summary = run.summary()
    return {
        "num_samples": settings.num_samples,
        "options": drawing.described(),
        "nfe": sum(summary["nfe_per_stage"]),
        "token_forwards_per_text": summary["token_forwards"] / settings.num_samples,
        "seconds_per_text": summary["seconds"] / settings.num_samples,
        "folder": str(run.folder.relative_to(folder.out)),
        "texts": [_shown(samples, row, cascade.tokenizer) for row in range(min(_TEXTS_SHOWN, settings.num_samples))],
        **described_figures(study, figures),
    }


def real_texts(windows: SharedWindows, num_texts: int) -> MeasuredTexts:
    """`num_texts` of the windows that all arms have, evenly spaced; all of them if there are fewer."""
    rows = torch.from_numpy(windows.windows[evenly_spaced(len(windows.windows), num_texts)]).long()
    return MeasuredTexts.of_windows(tuple(rows), windows.tokenizer)


def reference_figures(study: StudySettings, windows: SharedWindows, judge: Judge | None, device: str) -> dict[str, Any]:
    """The content of the record of real texts: figures of as many as the largest drawing has."""
    num_texts = max((settings.num_samples for settings in study.sampling), default=1)
    real = real_texts(windows, num_texts)
    measures = Measures(judge=judge, device=choose_device(device))
    figures = sample_figures(real, measures)
    return {"num_texts": len(real), **described_figures(study, figures)}


def described_figures(study: StudySettings, figures: Sequence[Figure]) -> dict[str, Any]:
    """The figures that the study keeps, as a record holds them."""
    kept = [figure for figure in figures if study.figures is None or figure.name in study.figures]
    return {**described(kept), "definitions": {figure.name: figure.definition for figure in kept}}


def _sample_run(
    arm: PlannedArm, settings: DrawingSettings, cascade: Cascade, drawing: Drawing, folder: StudyFolder
) -> SampleRun:
    """The run that was begun with these weights and settings, or a new one."""
    runs = folder.arm(arm.settings.name, arm.seed) / "samples" / settings.name
    asked = RunSettings(
        num_samples=settings.num_samples,
        batch_size=settings.batch_size,
        device=arm.config.device,
        judge=None,
        texts=SampleSettings.of(cascade, drawing, arm.folders),
    )
    for begun in sorted(runs.glob("sample_cascade_*")):
        run = SampleRun.open(begun)
        if (run.settings.texts, run.settings.num_samples) == (asked.texts, asked.num_samples):
            return run
    return SampleRun.begin(runs, asked)


def _complete(
    run: SampleRun, cascade: Cascade, settings: DrawingSettings, callbacks: StudyCallbacks, what: str
) -> StoredSamples:
    """All texts of a run, which draws those that are missing.

    Raises:
        StoppedError: it is time to stop, and texts are missing; finished batches are kept.
    """
    if run.is_complete():
        return run.samples()
    progress = draw_missing(
        run,
        cascade,
        batch_size=settings.batch_size,
        on_progress=lambda done, total: callbacks.show(what, done, total),
        on_state=lambda state: None,
        should_stop=callbacks.should_stop,
    )
    if progress.num_finished < settings.num_samples:
        raise StoppedError(
            f"{what} were stopped at {progress.num_finished} of {settings.num_samples}, which are kept; the same "
            "command goes on from there"
        )
    samples = run.samples()
    figures = {"num_samples": progress.num_finished, **stage_figures(dict(enumerate(samples.ids, start=1)))}
    run.conclude(samples, progress, {"batch_size": settings.batch_size, "judge": None, "figures": figures})
    return samples


def _figures(texts: MeasuredTexts, real: MeasuredTexts, judge: Judge | None, arm: PlannedArm) -> list[Figure]:
    device = choose_device(arm.config.device)
    features = None if judge is None else judge_features(judge, device)
    return sample_figures(texts, Measures(judge=judge, features=features, device=device), reference=real)


def _accepted(samples: StoredSamples, grammar: StoryGrammar, tokenizer: Tokenizer) -> Figure:
    """The share of texts that the grammar accepts."""
    texts = [tokenizer.decode_window(ids) for ids in samples.ids[-1].tolist()]
    return share_figure(
        "accepted_share",
        torch.tensor([grammar.accepts(text) for text in texts], dtype=torch.float64),
        "share of texts that the grammar of the built-in stories gives, to the letter",
        "there is no text",
    )


def _shown(samples: StoredSamples, row: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """A text in all its stages, in pieces by the stage that wrote them first, without the ends of text that fill it."""
    stages = [ids[row].tolist() for ids in samples.ids]
    shown = []
    for number, (ids, written_by) in enumerate(zip(stages, provenance(stages), strict=True), start=1):
        length = next((i for i in range(len(ids), 0, -1) if ids[i - 1] != tokenizer.eos_id), 0)
        grouped = itertools.groupby(zip(ids[:length], written_by, strict=False), key=lambda pair: pair[1])
        pieces = [(tokenizer.decode([token for token, _ in group]), stage) for stage, group in grouped]
        shown.append({"stage": number, "text": tokenizer.decode(ids[:length]), "pieces": pieces})
    return shown
