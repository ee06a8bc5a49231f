"""A cascade: stages sampled one after another, each from the text of the stage before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import torch

from cascaded_dllm.checks import require_whole
from cascaded_dllm.model.compilation import compile_blocks
from cascaded_dllm.model.devices import choose_device, choose_dtype
from cascaded_dllm.model.pretrained import warn_of_damaged
from cascaded_dllm.model.stage_settings import StageSettings, Weights
from cascaded_dllm.sample.batch import states_of_batch
from cascaded_dllm.sample.belonging import TextKind
from cascaded_dllm.sample.bundle import BundleContent, save_bundle
from cascaded_dllm.sample.bundle_hub import push_bundle
from cascaded_dllm.sample.constraints import Constraints
from cascaded_dllm.sample.cost import token_forwards
from cascaded_dllm.sample.drawable import require_drawable
from cascaded_dllm.sample.drawing import Drawing, DrawingOptions, drawing_of_options
from cascaded_dllm.sample.loading import read_cascade, require_as_loaded
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.samples import CascadeBatch, CascadeSamples, CascadeState
from cascaded_dllm.sample.state import SamplerState
from cascaded_dllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Cascade:
    """Stages in order, and the tokenizer they share. A flat model is a cascade of one stage.

    Attributes:
        stages: first stage first; the first stages of a longer cascade are also a cascade.
        tokenizer: the tokenizer of all stages.
        trained_lengths: all stage lengths of the cascade that the stages, or the flat model, were trained for; they
            decide which windows of a corpus belong to it.
        is_flat: whether the only stage is a flat model.
        packing: how documents were cut into the windows that the stages were trained on; empty if no checkpoint says.
        passed_over: damaged checkpoints of the run folders, newer than the ones that were loaded.
        settings: settings in the checkpoint of every stage; empty without checkpoints.
        weights: which weights of the checkpoints the stages have.
    """

    stages: tuple[StageSampler, ...] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    trained_lengths: tuple[int, ...]
    is_flat: bool = False
    packing: str = ""
    passed_over: tuple[str, ...] = ()
    settings: tuple[StageSettings, ...] = field(default=(), repr=False)
    weights: Weights = "ema"

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | Sequence[str | Path],
        *,
        lengths: Sequence[int] | None = None,
        tokenizer: str | Path | None = None,
        weights: Weights | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
        compile: bool = False,
    ) -> "Cascade":
        """A cascade from a bundle, or from one checkpoint, run folder or hub id for each stage.

        Args:
            source: a bundle, or a list of the stages, first stage first. A single path or id that is not a bundle is a
                cascade of one stage or a flat model.
            lengths: stage lengths, for checkpoints that do not say them: a SEDD model is a flat model of the last one.
            tokenizer: file, folder or hub id; by default that of the bundle, or the one beside the first stage's
                weights.
            weights: `ema`, the moving average, or `raw`; by default those of the bundle, or else the average.
            device: where the networks go; "auto" is a GPU if there is one.
            dtype: dtype of the matrix products of the trunk, float32 or bfloat16; the output layer and the
                probabilities stay in float32.
            compile: whether the blocks go through torch.compile, which delays the first texts.

        Raises:
            CheckpointError: a checkpoint or a bundle cannot be read, or the stages do not belong together.
            ConfigError: no stage is given, `lengths` cannot be stage lengths or differ from those of a checkpoint, a
                bundle holds other weights, there is no such device or dtype, or there is no compiler.

        Warns:
            DamagedCheckpointWarning: the newest checkpoint of a run is damaged, and an older one was loaded.
        """
        place = choose_device(device)
        samplers, content, passed_over = read_cascade(
            source, lengths=lengths, tokenizer=tokenizer, weights=weights, device=place, dtype=choose_dtype(dtype)
        )
        warn_of_damaged(passed_over)
        if compile:
            for sampler in samplers:
                compile_blocks(sampler.model, place)
        return cls(
            samplers,
            content.tokenizer,
            trained_lengths=content.settings[0].stage_lengths,
            is_flat=content.is_flat,
            packing=content.packing,
            passed_over=passed_over,
            settings=content.settings,
            weights=content.weights,
        )

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Saves a bundle with all stages, the tokenizer and a model card, and returns its folder.

        Args:
            folder: a path at which there is nothing yet.
            license: identifier of a licence, for the model card; by default the card names none.

        Raises:
            ConfigError: the cascade does not come from checkpoints, was changed since, or its weights are rounded to
                another dtype; or the licence is not an identifier.
            OutputError: the folder exists, or cannot be written.
        """
        save_bundle(Path(folder), self._content(), license=license)
        return Path(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a cascade",
        license: str | None = None,
    ) -> str:
        """Uploads the bundle of this cascade to the Hugging Face hub, in one commit, and returns its address.

        Args:
            repo_id: owner/name; the repository is created if there is none.
            private: whether a new repository is private; None for the default of its owner. An existing repository
                keeps its visibility; if it is public and a private one is asked for, nothing is uploaded.
            token: token of a user who may write there; None for the one that `hf auth login` has stored.
            commit_message: message of the commit.
            license: as in `save_pretrained`.

        Raises:
            ConfigError: `repo_id` is not a hub id, or the cascade cannot be saved.
            HubError: there is no network, nobody is logged in, the hub refuses, or the repository is public although
                a private one is asked for.
        """
        return push_bundle(
            repo_id,
            self._content(),
            private=private,
            token=token,
            commit_message=commit_message,
            license=license,
        )

    def _content(self) -> BundleContent:
        """This cascade as a bundle stores it.

        Raises:
            ConfigError: it does not come from checkpoints, or differs from them.
        """
        content = BundleContent(
            models=tuple(stage.model for stage in self.stages),
            settings=self.settings[: len(self.stages)],
            tokenizer=self.tokenizer,
            weights=self.weights,
            packing=self.packing,
        )
        content.require_savable()
        require_as_loaded(self.stages, content)
        return content

    @property
    def stage_lengths(self) -> tuple[int, ...]:
        """Tokens that every stage writes."""
        return tuple(stage.length for stage in self.stages)

    @property
    def unique(self) -> bool:
        """Whether the shortened stages were trained to hold a token id only once; True without checkpoints."""
        return all(settings.unique for settings in self.settings)

    @property
    def method(self) -> str:
        """The method of importance that chose the tokens of the stages; empty if no checkpoint says."""
        return next((settings.method for settings in self.settings if settings.method), "")

    @property
    def text_kind(self) -> TextKind:
        """The texts that the stages were trained on, as far as any checkpoint says."""
        has_choice = not self.is_flat and len(self.settings) > 0
        choices = (TextKind.of_checkpoint(settings).choice for settings in self.settings)
        return TextKind(
            tokenizer=self.tokenizer.fingerprint,
            vocab_size=self.tokenizer.vocab_size,
            packing=self.packing,
            unique=self.unique if has_choice else None,
            method=self.method if has_choice else "",
            choice=next(filter(None, choices), ""),
        )

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.stages[0].model.device

    def to(self, device: str | torch.device) -> "Cascade":
        """Moves the networks to another device, and returns this cascade.

        Raises:
            ConfigError: there is no such device.
        """
        place = choose_device(device)
        for stage in self.stages:
            stage.model.to(place)
        return self

    def generate(
        self,
        num_samples: int,
        drawing: Drawing | None = None,
        *,
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
        **options: Unpack[DrawingOptions],
    ) -> CascadeSamples:
        """Texts of all stages; text i depends on `seed` and i, not on the batch it is drawn in.

        Options:

            predictor: one of `PREDICTORS` by name, or an object such as `FirstHittingPredictor(tokens_per_call=4)`;
                for all stages, or one for each. The default is `first_hitting`; see docs/sampling.md.
            steps: steps of the time grid, 128 if None; for all stages, or one entry for each. Only predictors with a
                grid take it.
            tokens_per_call: tokens that leave MASK together with a predictor that has no grid; 1 if None.
            eta: how much `remask` masks again; 0.1 if None.
            gaps_per_call: gaps of a layout that are drawn together in placed stages; 1 if None.
            temperature: temperature of the law of a token; 1 (the default) changes nothing, 0 takes the most probable
                token.
            top_k: the number of most probable tokens that a draw chooses from; None for all.
            top_p: a draw chooses from the fewest tokens with a total probability of at least this; 1 for all.
            seed: decides all random numbers; 0 by default.
            guidance: weight of classifier-free guidance by the prefix, for stages trained with prefix dropout; 0 is
                none.
            prefix_noise: probability that a token of the prefix that a later stage reads is replaced as in its
                training, for stages trained with prefix noise; 0 is none. The texts themselves stay as written.
            keywords: words that stage 1 contains in this order.
            outline: a text whose words the first stage with room for them contains in order.
            pinned: text at fixed places of stages, a list of `Pin`.
            given: texts of a stage to continue from; text i continues the one of number i modulo their number.
            require_coverage: whether every stage contains all tokens of the stage before, in order.

        Args:
            num_samples: number of texts.
            drawing: how they are drawn, in place of all options.
            batch_size: texts drawn together.
            on_progress: gets, after every step, the texts done and the texts to do, both counted once for each stage.
            options: those above.

        Raises:
            ConfigError: a number is out of range, a predictor is unknown or does not fit, a stage was not trained for
                guidance or prefix noise, the constraints do not fit into the texts, or options are given beside a
                `drawing`.
            TypeError: there is no such option.
        """
        require_whole("num_samples", num_samples, 1)
        asked = drawing_of_options(options, drawing)
        parts = self.batches(range(num_samples), asked, batch_size=batch_size, on_progress=on_progress)
        return CascadeSamples.joined([part for _, part in parts])

    def batches(
        self,
        numbers: Sequence[int],
        drawing: Drawing,
        *,
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
        on_state: Callable[[CascadeState], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[CascadeBatch]:
        """The texts of these numbers, each batch as soon as it is finished; text i is the same in any batch.

        Args:
            numbers: numbers of the texts, in any order: those that a run still lacks, for example.
            drawing: how they are drawn.
            batch_size: texts drawn together.
            on_progress: gets, after every step, the texts done and the texts to do, both counted once for each stage.
            on_state: gets every state.
            should_stop: called after every step; if it returns True, the unfinished batch is lost and no more follow.

        Raises:
            ConfigError: a setting is out of range or does not fit the stages.
        """
        asked = self.require_drawable(drawing)
        require_whole("batch_size", batch_size, 1)
        num_stages = len(asked.stages)
        for first in range(0, len(numbers), batch_size):
            batch = numbers[first : first + batch_size]
            ended: list[SamplerState] = []
            for seen in states_of_batch(self.stages, batch, drawing, asked, self.device):
                state = seen.state
                if on_state is not None:
                    on_state(seen)
                if on_progress is not None:
                    within = len(batch) * state.step // max(state.num_steps, 1)
                    on_progress(first * num_stages + len(ended) * len(batch) + within, len(numbers) * num_stages)
                if state.step == state.num_steps:
                    ended.append(state)
                if len(ended) < num_stages and should_stop is not None and should_stop():
                    return
            yield CascadeBatch(tuple(batch), self._finished(ended, drawing, asked.first_stage))

    def stream(
        self,
        num_samples: int,
        drawing: Drawing | None = None,
        *,
        batch_size: int = 32,
        **options: Unpack[DrawingOptions],
    ) -> Iterator[CascadeState]:
        """The states that texts go through; `shown` turns a state into texts.

        Args:
            num_samples: number of texts.
            drawing: how they are drawn, in place of all options.
            batch_size: texts drawn together.
            options: those of `generate`: `seed`, `predictor`, `keywords` and so on.

        Raises:
            ConfigError: a setting is out of range or does not fit the stages, or options are given beside a `drawing`.
            TypeError: there is no such option.
        """
        plan = drawing_of_options(options, drawing)
        require_whole("num_samples", num_samples, 1)
        require_whole("batch_size", batch_size, 1)
        asked = self.require_drawable(plan)
        for first in range(0, num_samples, batch_size):
            batch = range(first, min(first + batch_size, num_samples))
            yield from states_of_batch(self.stages, batch, plan, asked, self.device)

    def shown(self, state: CascadeState) -> list[str]:
        """The texts of a state of `stream`, with "[MASK]" for every token that is not decided yet."""
        return [self.tokenizer.decode_window(ids) for ids in state.state.xt.tolist()]

    def require_drawable(self, drawing: Drawing) -> Constraints:
        """The constraints of every stage; also checks that these stages can draw what `drawing` asks for.

        Raises:
            ConfigError: a setting is out of range or does not fit the stages.
        """
        return require_drawable(self.stages, drawing, self.tokenizer, unique=self.unique)

    def _finished(self, ended: Sequence[SamplerState], drawing: Drawing, first_stage: int) -> CascadeSamples:
        """A batch from the last state of every stage."""
        ids = tuple(state.xt.cpu() for state in ended)
        nfe = tuple(state.nfe for state in ended)
        every = (0.0,) * (first_stage - 1) + nfe
        return CascadeSamples(
            ids,
            tuple([self.tokenizer.decode(row) for row in stage.tolist()] for stage in ids),
            nfe,
            round(token_forwards(self.stages, every, drawing) * len(ids[0])),
            first_stage,
            [self.tokenizer.decode_window(row) for row in ids[-1].tolist()],
        )
