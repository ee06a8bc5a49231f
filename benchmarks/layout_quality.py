"""How good the layouts of a placed stage are: against uniform ones, against a histogram, and drawn in fewer calls.

    OMP_NUM_THREADS=1 python benchmarks/layout_quality.py runs/placed3 DATA/wikitext2_train DATA/wikitext2_valid

    uniform      log C(m, n): all layouts are equally probable
    histogram    independent gaps, by how often each token had a gap of this size before it in training, given the sum
                 that a layout must have, so that it is a law of layouts
    network      the bound of the layout network, which is what the stage pays

Then layouts are drawn for the same texts, k gaps a call, and the bound of the network says what they cost: those with
one gap a call follow its own law, and others that are less probable cost more. Their variety is not measured.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from measure import Report, arguments, table
from torch import Tensor

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset, evenly_spaced
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.layout import gaps_of, places_of
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.evaluate.likelihood import mean_and_error
from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.sample.layout import draw_gaps, layout_calls
from cascaded_dllm.train.layout_objective import layout_bound

_NUM_TIMES, _BATCH = 16, 32
_PRIOR = 4.0
"""Weight, in gaps, of the histogram of all tokens in that of each token."""
_COUNTED_AT_ONCE = 8192


def stage_dataset(folder: Path, settings: StageSettings) -> StageDataset:
    """The windows of a preprocessed folder, for a placed stage."""
    arrays = StageArrays.build(
        folder, CascadeSpec(settings.stage_lengths), packing=settings.packing, unique=settings.unique
    )
    return StageDataset(arrays, settings.stage, is_placed=True)


def laid_out(dataset: StageDataset, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Texts of the stage before, and their gaps, of the windows `indices`."""
    prefix, places = dataset.batch(indices)[0], dataset.places(indices)
    assert prefix is not None
    assert places is not None
    return torch.from_numpy(prefix), gaps_of(torch.from_numpy(places), dataset.target_length)


def histogram(dataset: StageDataset, vocab_size: int) -> Tensor:
    """Log probability of every size of the gap before every token, (V + 1, S); the last row is the end of the text."""
    num_labels = dataset.num_free + 1
    counts = torch.zeros((vocab_size + 1) * num_labels)
    for first in range(0, len(dataset), _COUNTED_AT_ONCE):
        z, gaps = laid_out(dataset, np.arange(first, min(first + _COUNTED_AT_ONCE, len(dataset))))
        tokens = torch.nn.functional.pad(z, (0, 1), value=vocab_size)
        counts += torch.bincount((tokens * num_labels + gaps).flatten(), minlength=len(counts))
    by_token = counts.view(vocab_size + 1, num_labels).double()
    # A small count for every size keeps those possible that no training text has.
    of_all = (by_token.sum(0) + 1e-3) / (by_token.sum() + 1e-3 * num_labels)
    return ((by_token + _PRIOR * of_all) / (by_token.sum(1, keepdim=True) + _PRIOR)).log()


def histogram_nats(log_law: Tensor, z: Tensor, gaps: Tensor) -> Tensor:
    """-log p of layouts whose gaps are independent but for their sum: nats a text."""
    laws = log_law[torch.nn.functional.pad(z, (0, 1), value=len(log_law) - 1)]
    size = laws.shape[-1]
    total = laws[:, 0].exp()
    for law in laws[:, 1:].exp().unbind(1):
        # The law of the sum so far, up to the sum of a layout.
        total = torch.stack([(total[:, : s + 1] * law[:, : s + 1].flip(1)).sum(1) for s in range(size)], dim=1)
    return total[:, -1].log() - laws.gather(-1, gaps[..., None])[..., 0].sum(1)


def own_nats(model: LayoutModel, z: Tensor, gaps: Tensor, seed: int) -> Tensor:
    """The bound of the network on given layouts, nats a text."""
    draws = Draws(seed, "layout-quality")
    found = [
        layout_bound(model, z[i : i + _BATCH], places_of(gaps[i : i + _BATCH]),
                     index=torch.arange(i, min(i + _BATCH, len(z))), draws=draws, num_times=_NUM_TIMES).nll_nats
        for i in range(0, len(z), _BATCH)
    ]  # fmt: skip
    return torch.cat(found)


def main() -> None:
    """Measure a trained stage."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("stage", type=Path, help="run folder or checkpoint of a placed stage")
    parser.add_argument("train", type=Path, help="preprocessed folder that the histogram counts")
    parser.add_argument("valid", type=Path, help="preprocessed folder to measure on")
    parser.add_argument("--num-windows", type=int, default=256, help="measured (default 256)")
    options = parser.parse_args()
    loaded = load_stage(options.stage)
    model = layout_of(loaded.model)
    if model is None:
        parser.error(f"{options.stage} is not a placed stage")
    num_windows = 4 if options.quick else options.num_windows
    valid = stage_dataset(options.valid, loaded.settings)
    z, gaps = laid_out(valid, evenly_spaced(len(valid), num_windows))
    n, m = valid.prefix_length, valid.target_length
    report = Report(f"Layouts of {n} tokens in {m}, nats a window, {len(z)} windows", save=options.save)
    law = histogram(stage_dataset(options.train, loaded.settings), model.config.vocab_size)
    with torch.inference_mode():
        rows = []
        uniform = math.lgamma(m + 1) - math.lgamma(n + 1) - math.lgamma(m - n + 1)
        for name, nats in (
            ("uniform", torch.full((len(z),), uniform)),
            ("histogram", histogram_nats(law, z, gaps)),
            ("network", own_nats(model, z, gaps, 0)),
        ):
            mean, error = mean_and_error(nats)
            rows.append((name, f"{mean:.2f} +- {error:.2f}"))
            report.record(law=name, nats=mean, error_nats=error)
        report.text(table(["law", "true layouts"], rows) + "\n")
        rows = []
        hidden = torch.full_like(gaps, model.hidden_label)
        for per_call in (1, 2, 4, 8, 16, n):
            drawn = draw_gaps(
                model, z, hidden, draws=Draws(1, "layouts"), sample_index=torch.arange(len(z)), gaps_per_call=per_call
            )
            mean, error = mean_and_error(own_nats(model, z, drawn, 2))
            calls = layout_calls(gaps.shape[1], per_call)
            rows.append((per_call, calls, f"{mean:.2f} +- {error:.2f}"))
            report.record(gaps_per_call=per_call, calls=calls, nats=mean, error_nats=error)
        report.text(table(["gaps a call", "calls", "drawn layouts cost"], rows) + "\n")
    report.close()


if __name__ == "__main__":
    main()
