"""Reading the `results.json` of a study; the error for a damaged file says where it is damaged."""

import json
from pathlib import Path

from cascaded_dllm.errors import DataError
from cascaded_dllm.file_names import RESULTS_FILE, RESULTS_FORMAT, STATUSES
from cascaded_dllm.report.fields import Fields, finite
from cascaded_dllm.report.results import (
    UNITS,
    ArmRun,
    Bound,
    PairedDifference,
    Piece,
    Point,
    Results,
    Sampling,
    StageBound,
    StageRun,
    StageText,
)

MOST_STAGES = 64
"""Most stages of a study, each of which has its own colour."""


def read_results(path: Path) -> Results:
    """The results of a study.

    Args:
        path: `results.json`, or the folder that holds it.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        values = _whole(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror or error}); name the folder of a study, or its {RESULTS_FILE}, "
            "which `cdllm study run` writes at its end, and `cdllm study collect` of what is finished"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error}); run the study again to write it anew") from error
    fields = Fields(values if isinstance(values, dict) else {}, f"{file}: ")
    fields.choice("format", (RESULTS_FORMAT,))
    return _results(fields)


def _whole(value: object) -> object:
    """`value` with lone halves of surrogate pairs replaced, which JSON can spell but no text file can hold."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {str(_whole(key)): _whole(item) for key, item in value.items()}
    return value


def _results(fields: Fields) -> Results:
    results = Results(
        name=fields.text("name"),
        study=fields.mapping("study"),
        command=fields.text("command"),
        versions=fields.texts("versions"),
        device=fields.text("device"),
        data=fields.mapping("data"),
        budget=_budget(fields),
        lengths=_lengths(fields),
        truth_nats=fields.number_or_null("truth_nats_per_window"),
        reference=fields.fields("reference").numbers("figures"),
        reference_errors=fields.fields("reference").optional_numbers("errors"),
        definitions=fields.texts("definitions"),
        arms=tuple(_arm(arm) for arm in fields.listed("arms")),
        paired=tuple(_paired(pair) for pair in fields.listed("paired")),
    )
    _require_single_entries(fields, results)
    return results


def _budget(fields: Fields) -> dict[str, float]:
    """The budget of an arm, by unit.

    Raises:
        DataError: it has no number in a known unit.
    """
    inside = fields.fields("budget")
    amounts = {unit: amount for unit in UNITS if (amount := inside.optional_number(unit)) is not None}
    if not amounts:
        raise fields.wrong("budget", f"an object with a number for {' or '.join(UNITS)}")
    return amounts


def _lengths(fields: Fields) -> tuple[int, ...]:
    """The stage lengths.

    Raises:
        DataError: there are none, or one of them is not a whole number of at least 1.
    """
    lengths = fields.entries("lengths")
    if not lengths or not all(type(length) is int and length > 0 for length in lengths):
        raise fields.wrong("lengths", "the token counts of all stages, whole numbers of at least 1")
    return tuple(length for length in lengths if isinstance(length, int))


def _require_single_entries(fields: Fields, results: Results) -> None:
    """Checks that every arm has every seed only once, and that the differences are between arms of the study.

    Raises:
        DataError: a seed is there twice, or an arm is missing.
    """
    keys = [(arm.arm, arm.seed) for arm in results.arms]
    if len(set(keys)) < len(keys):
        raise fields.wrong("arms", "a list in which every arm has every seed once")
    names = {arm.arm for arm in results.arms}
    if any(not {pair.arm, pair.other} <= names for pair in results.paired):
        raise fields.wrong("paired", f"a list of differences between arms of the study: {', '.join(sorted(names))}")


def _arm(fields: Fields) -> ArmRun:
    return ArmRun(
        arm=fields.text("arm"),
        seed=fields.integer("seed", at_least=0),
        status=fields.choice("status", STATUSES),
        reason="" if fields.is_null("reason") else fields.text("reason"),
        description=fields.text("description"),
        settings=fields.mapping("settings"),
        runs=tuple(_run(run) for run in fields.listed("runs")),
        bound=None if fields.is_null("bound") else _bound(fields.fields("bound")),
        samplings=tuple(_sampling(sampling) for sampling in fields.listed("sampling")),
        texts=_texts(fields),
    )


def _run(fields: Fields) -> StageRun:
    return StageRun(
        stage=fields.integer("stage", at_least=0, at_most=MOST_STAGES),
        folder=fields.text("folder"),
        num_steps=fields.integer("num_steps", at_least=0),
        token_forwards=fields.number("token_forwards"),
        flops=fields.number_or_null("flops"),
        seconds=fields.number("seconds"),
        parameters=None if fields.is_null("parameters") else fields.integer("parameters", at_least=0),
        curve=_curve(fields, "curve"),
        bound_curve=_curve(fields, "bound_curve"),
    )


def _curve(fields: Fields, name: str) -> tuple[Point, ...]:
    """The points of a curve; a value that was not finite, which JSON spells null or NaN, is None.

    Raises:
        DataError: an entry is not a pair of a number and a number or null.
    """
    points = []
    for entry in fields.entries(name):
        match entry:
            case [place, float() | int() | None as value] if finite(place) is not None:
                points.append(Point(finite(place) or 0.0, finite(value)))
            case _:
                raise fields.wrong(name, "a list of pairs [token-forwards, value or null]")
    return tuple(points)


def _bound(fields: Fields) -> Bound:
    return Bound(
        nats=fields.number("bound_nats_per_window"),
        standard_error=fields.number_or_null("standard_error_nats"),
        nats_per_token=fields.number("bound_nats_per_token"),
        ppl=fields.number_or_null("bound_ppl"),
        omitted_nats=fields.number("omitted_nats_per_window_at_most"),
        num_windows=fields.integer("num_windows", at_least=1),
        stages=tuple(_stage_bound(stage) for stage in fields.listed("stages")),
    )


def _stage_bound(fields: Fields) -> StageBound:
    return StageBound(
        stage=fields.integer("stage", at_least=1, at_most=MOST_STAGES),
        nats=fields.number("bound_nats_per_window"),
        standard_error=fields.number_or_null("standard_error_nats"),
        unigram_nats=fields.optional_number("unigram_nats_per_window"),
        layout_nats=fields.optional_number("layout_nats_per_window"),
    )


def _sampling(fields: Fields) -> Sampling:
    return Sampling(
        name=fields.text("name"),
        options=fields.mapping("options"),
        num_samples=fields.integer("num_samples", at_least=0),
        nfe=fields.number("nfe"),
        token_forwards_per_text=fields.number("token_forwards_per_text"),
        seconds_per_text=fields.number("seconds_per_text"),
        figures=fields.numbers("figures"),
        errors=fields.optional_numbers("errors"),
    )


def _texts(fields: Fields) -> tuple[tuple[StageText, ...], ...]:
    """The samples, each with its stages.

    Raises:
        DataError: a sample is not a list of objects.
    """
    samples = []
    for place, sample in enumerate(fields.entries("texts")):
        if not isinstance(sample, list):
            raise fields.wrong("texts", "a list of samples, each a list of its stages")
        samples.append(tuple(_stage_text(stage) for stage in fields.among(sample, f"texts[{place}]")))
    return tuple(samples)


def _stage_text(fields: Fields) -> StageText:
    """The text of one stage.

    Raises:
        DataError: a piece is not a pair of a text and the number of a stage.
    """
    pieces = []
    for entry in fields.entries("pieces"):
        match entry:
            case [str() as text, int() as stage] if 1 <= stage <= MOST_STAGES:
                pieces.append(Piece(text, stage))
            case _:
                raise fields.wrong("pieces", "a list of pairs [text, number of the stage that wrote it]")
    return StageText(fields.integer("stage", at_least=1, at_most=MOST_STAGES), fields.text("text"), tuple(pieces))


def _paired(fields: Fields) -> PairedDifference:
    return PairedDifference(
        arm=fields.text("arm"),
        other=fields.text("other"),
        seed=fields.integer("seed", at_least=0),
        nats=fields.number("mean_nats_per_window"),
        standard_error=fields.number_or_null("standard_error_nats"),
    )
