"""Sampling one stage: from noise to text, as a generator of states that callers show or store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.diffusion.layout import places_of
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process, UniformProcess
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.absorbing import AbsorbingSampling
from cascaded_dllm.sample.conditioning import Conditioning, require_guidable
from cascaded_dllm.sample.first_words import FirstWords
from cascaded_dllm.sample.layout import LayoutRequest, draw_gaps, known_gaps, layout_calls
from cascaded_dllm.sample.predictors import EulerPredictor, Predictor, TweediePredictor, require_steps
from cascaded_dllm.sample.required import RequiredWords, Word
from cascaded_dllm.sample.state import SamplerState, Start
from cascaded_dllm.sample.token_law import UNCHANGED, TokenLaw
from cascaded_dllm.sample.uniform import UniformSampling
from cascaded_dllm.sample.writing import TokenWriter, require_written

T_END = 1e-5
"""Default time at which the steps of a grid stop."""


def require_usable(predictor: Predictor, process: Process, num_steps: int, *, group: str = "") -> None:
    """Checks arguments of `StageSampler.states`, for callers that must know of a mistake before the first call.

    Args:
        predictor: how a step is taken.
        process: forward process of the model.
        num_steps: steps of the time grid.
        group: prefix of the keys that set them in a configuration, such as "sampling."; for messages.

    Raises:
        ConfigError: `num_steps` is less than 1 or too large, or the predictor does not exist for this process.
    """
    require_steps(f"{group}num_steps" if group else "steps", num_steps)
    if isinstance(process, UniformProcess) and not isinstance(predictor, EulerPredictor | TweediePredictor):
        raise ConfigError(
            f"{group}predictor {predictor.name} needs the absorbing process, this model has the uniform one; "
            "choose euler or analytic"
        )


@dataclass(frozen=True, slots=True)
class StageSampler:
    """One stage, ready to be sampled.

    Attributes:
        model: the network, in evaluation mode.
        process: forward process that it was trained with.
        schedule: noise schedule that it was trained with.
        length: tokens that it writes.
        t_end: time at which the steps of a grid stop and the final denoising takes over.
        prefix_length: tokens of the stage before, 0 for none; a prefix of another length is refused. None accepts any.
        trained_with: how its prefixes were changed in training, which decides whether it can be guided and can read
            noised prefixes.
    """

    model: ScoreModel
    process: Process
    schedule: Schedule
    length: int
    t_end: float = T_END
    prefix_length: int | None = None
    trained_with: PrefixSettings = TRUE_PREFIXES

    @property
    def is_placed(self) -> bool:
        """Whether it is a placed stage, in which the tokens of the stage before have their places."""
        return layout_of(self.model) is not None

    def layout_forwards(self, gaps_per_call: int = 1) -> int:
        """Positions that go through the layout network for one text; 0 for a stage that is not placed."""
        layout = layout_of(self.model)
        if layout is None:
            return 0
        return layout_calls(layout.config.num_gaps, gaps_per_call) * layout.config.num_gaps

    def states(
        self,
        prefix: Int[Tensor, "B P"] | None,
        *,
        predictor: Predictor,
        num_steps: int,
        draws: Draws,
        sample_index: Int[Tensor, " B"],
        start: Start | None = None,
        guidance: float = 0.0,
        law: TokenLaw = UNCHANGED,
        words: Sequence[Sequence[Word]] | None = None,
        required: Sequence[Sequence[Word]] | None = None,
        layout: LayoutRequest | None = None,
    ) -> Iterator[SamplerState]:
        """States from noise to finished texts; the last one holds no MASK.

        Args:
            prefix: ids of the stage before, or None.
            predictor: how a step is taken.
            num_steps: steps of the time grid, before the final denoising; predictors without a grid ignore it.
            draws: the stream of random numbers.
            sample_index: number of each text, on which its random numbers depend; they do not depend on the batch.
            start: texts to begin with; pure noise if None.
            guidance: weight of classifier-free guidance; 0 is none, any other takes two calls instead of one.
            law: how the law of a token is changed before it is drawn.
            words: for each text, words that are written before all else, in order (`first_words`), or None.
            required: for each text, words that it must contain in order, written among all else, or None.
            layout: how the layouts of a placed stage are drawn; None for `LayoutRequest()`.

        Raises:
            ConfigError: `num_steps` is out of range; the process cannot be sampled with this predictor, law or words;
                the prefix has another length than in training; a placed stage has no prefix; the stage cannot be
                guided; or there is no room for the words or for the layout.
            NonFiniteScoresError: the network answers with NaN or infinity.
        """
        require_usable(predictor, self.process, num_steps)
        found = 0 if prefix is None else prefix.shape[1]
        if self.prefix_length is not None and found != self.prefix_length:
            raise ConfigError(
                f"the prefix has {found} tokens, this stage was trained on {self.prefix_length}; give it what the "
                "stage before writes"
            )
        require_guidable(guidance, self.trained_with, found)
        if (network := layout_of(self.model)) is not None:
            if prefix is None:
                raise ConfigError("a placed stage begins with the text of the stage before; give it one")
            start = self._placed(network, prefix, start, layout or LayoutRequest(), draws, sample_index)
            prefix = None
        conditioning = Conditioning.encode(self.model, prefix, target_length=self.length, guidance=guidance)
        if isinstance(self.process, UniformProcess):
            assert isinstance(predictor, EulerPredictor | TweediePredictor)
            self.require_possible(law, is_required=words is not None or required is not None)
            sampling = UniformSampling(
                self.model, self.process, self.schedule, conditioning, draws, sample_index, self.t_end
            )
            yield from sampling.states(start or sampling.noise(self.length), predictor, num_steps)
            return
        start = start or self._masked(self.process, len(sample_index), sample_index.device)
        automata = None if required is None else self.require_room(required, start.xt, self.process)
        path_draws = Draws(draws.seed, f"{draws.purpose}-required")
        writer = TokenWriter(self.model, conditioning, law, automata, self.process.mask_id, path_draws, sample_index)
        num_noised, nfe = self.length if network is None else network.config.num_new, 0.0
        if words is not None:
            self.require_room(words, start.xt, self.process)
            start, nfe = FirstWords(writer, words, self.schedule, num_noised).written(start)
        absorbing = AbsorbingSampling(
            self.process, self.schedule, writer, draws, sample_index, start, self.t_end, num_noised
        )
        for state in absorbing.states(predictor, num_steps):
            if state.step == state.num_steps:
                require_written(state.xt, self.process.mask_id)
            yield replace(state, nfe=nfe + state.nfe)

    def _placed(
        self,
        network: LayoutModel,
        prefix: Int[Tensor, "B P"],
        start: Start | None,
        layout: LayoutRequest,
        draws: Draws,
        sample_index: Int[Tensor, " B"],
    ) -> Start:
        """The texts to begin with, which also hold the tokens of the stage before, in places that are drawn."""
        gaps = draw_gaps(
            network,
            prefix,
            known_gaps(network, layout.together or [()] * len(prefix), prefix.device),
            draws=Draws(draws.seed, f"{draws.purpose}-layout"),
            sample_index=sample_index,
            gaps_per_call=layout.gaps_per_call,
            rules=layout.rules,
        )
        assert isinstance(self.process, AbsorbingProcess), "a placed stage fills in what is masked"
        start = start or self._masked(self.process, len(prefix), prefix.device)
        return Start(start.xt.scatter(1, places_of(gaps), prefix), start.t)

    def require_possible(self, law: TokenLaw, *, is_required: bool) -> None:
        """Checks that the process can do what is asked of it.

        The uniform process may change any token in any step, so no token can be kept, and no law can be cut.

        Args:
            law: how the law of a token is changed.
            is_required: whether words are required or text is pinned.

        Raises:
            ConfigError: it is the uniform process, and the law is changed or something is required.
        """
        if isinstance(self.process, AbsorbingProcess):
            return
        if not law.is_unchanged:
            raise ConfigError(
                f"tokens are to be drawn with {law}, which needs the absorbing process, and this model has the uniform "
                "one; leave temperature, top_k and top_p out"
            )
        if is_required:
            raise ConfigError(
                "text is required or pinned, which needs the absorbing process, and this model has the uniform one; "
                "ask for none, or use a model of the absorbing process"
            )

    def _masked(self, process: AbsorbingProcess, num_texts: int, device: torch.device) -> Start:
        """Texts of nothing but MASK, at time 1."""
        xt = torch.full((num_texts, self.length), process.mask_id, device=device)
        return Start(xt, torch.ones(num_texts, device=device))

    def require_room(
        self, required: Sequence[Sequence[Word]], xt: Int[Tensor, "B L"], process: AbsorbingProcess
    ) -> RequiredWords:
        """The automata of the words that the texts must contain in order; also checks that there is room for them.

        Args:
            required: words of each text.
            xt: the texts, MASK where tokens are to be written.
            process: forward process of the stage.

        Raises:
            ConfigError: there is no room for them in a text.
        """
        words = RequiredWords.build(required, xt.device)
        is_possible = words.are_possible(xt, process.mask_id)
        if not is_possible.all():
            first = int((~is_possible).nonzero()[0])
            num_free = int((xt[first] == process.mask_id).sum())
            raise ConfigError(
                f"{len(required[first])} words of {sum(map(len, required[first]))} tokens are required in order, and "
                f"there is no room for them: the stage writes {self.length} tokens, of which {num_free} are free; "
                "require fewer words, or pin less"
            )
        return words
