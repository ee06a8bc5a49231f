"""Time the taggers of importance by part of speech against spaCy's whole pipeline, on the same documents.

Documents of 700 words are cut from novels, and taken evenly from all of them.

    whole pipeline  what a user of spaCy writes first: the pipeline called with one document after another
    SpacyTagger     ours, with the same pipeline: only the components that the tags need, all documents together
    english, lexicon
                    the taggers that need no model, and have seen no word before, as at the beginning of a job
    english warm, lexicon warm
                    the same once all words have been seen, which long corpora approach

The two slow variants get the first quarter of the documents; what counts is the time a word. As in the pipeline,
garbage collection is paused for every variant.

Both spaCy variants must find the same words with the same tags. So that no pipeline has to be downloaded, one with the
networks of en_core_web_sm is built: word vectors of 96, a tagger and a parser that share them, and an entity recogniser
with its own. Its lemmatizer and attribute ruler, which are cheap, are left out. It is trained for a few
steps on sentences of the documents, with the lexicon's tags, a made-up tree and made-up entities: long enough for its
answers to differ from word to word. Its speed does not depend on how good they are.

    OMP_NUM_THREADS=1 python benchmarks/bench_preprocess_constituency.py --data ../shared/data --save
"""

import functools
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import spacy
from documents import NOVELS, novels, require_data, stories
from measure import Report, Work, arguments, ratios, spread, table, take_turns
from spacy.training import Example

from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import Tagger
from cascaded_dllm.importance.taggers import LexiconTagger, SpacyTagger
from cascaded_dllm.preprocess.encoder import collector_paused

WHOLE, OURS = "whole pipeline", "SpacyTagger"
DEPENDENCIES, ENTITIES = 45, 18
"""As many labels as the parser and the entity recogniser of en_core_web_sm have."""
SENTENCE, SENTENCES, BATCH, EPOCHS = 25, 160, 16, 8
"""Training of the pipeline: words a sentence, sentences, sentences a step, and passes over them."""
SLOW_PART = 4
"""The slow variants get this fraction of the documents: one in so many."""

Tags = list[list[tuple[str, str]]]
"""For each document, its words with their tags."""


class Network(NamedTuple):
    """Sizes of the networks of a pipeline."""

    width: int
    depth: int
    rows: tuple[int, ...]


LIKE_SM = Network(96, 4, (5000, 1000, 2500, 2500, 50, 50))
TOY = Network(16, 1, (50, 50, 50, 50, 50, 50))


def vectors(network: Network, attributes: Sequence[str]) -> dict[str, Any]:
    """A network that turns words into vectors."""
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": network.width,
        "attrs": list(attributes),
        "rows": list(network.rows[: len(attributes)]),
        "include_static_vectors": False,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": network.width,
        "depth": network.depth,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    return {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}


def transitions(state: str, of_words: dict[str, Any]) -> dict[str, Any]:
    """A network that builds a parse or finds entities, word by word."""
    return {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": state,
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": True,
        "nO": None,
        "tok2vec": of_words,
    }


def save_pipeline(documents: Sequence[str], network: Network, folder: Path) -> None:
    """A pipeline like en_core_web_sm, trained for a few steps."""
    spacy.util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": network.width, "upstream": "*"}
    common = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
    pipeline.add_pipe("tok2vec", config={"model": vectors(network, [*common, "SPACY", "IS_SPACE"])})
    pipeline.add_pipe(
        "tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "nO": None, "tok2vec": listener}}
    )
    # The labels are random, so the parser must not drop rare ones: no sentence may be left without its labels.
    pipeline.add_pipe("parser", config={"model": transitions("parser", listener), "min_action_freq": 1})
    pipeline.add_pipe("ner", config={"model": transitions("ner", vectors(network, common))})
    sentences = list(itertools.islice(made_up(pipeline, documents), SENTENCES))
    optimizer = pipeline.initialize(lambda: sentences)
    for start in [*range(0, len(sentences), BATCH)] * EPOCHS:
        pipeline.update(sentences[start : start + BATCH], sgd=optimizer)
    pipeline.to_disk(folder)


def made_up(pipeline: Any, documents: Sequence[str]) -> Iterator[Example]:
    """Pieces of documents with the lexicon's tags, and random trees and entities."""
    draws, tagger = random.Random(0), LexiconTagger()
    for document in documents:
        words = tagger.tag([document])[0][:SENTENCE]
        doc = spacy.tokens.Doc(pipeline.vocab, words=[word.text for word in words])
        annotations = {
            "tags": [word.tag for word in words],
            # A chain, each word below the one before, is a tree without crossing edges.
            "heads": [max(0, place - 1) for place in range(len(words))],
            "deps": ["ROOT", *(f"dep{draws.randrange(DEPENDENCIES)}" for _ in words[1:])],
            "entities": [f"U-{draws.randrange(ENTITIES)}" if draws.random() < 0.1 else "O" for _ in words],
        }
        yield Example.from_dict(doc, annotations)


def whole_pipeline(folder: Path) -> Callable[[list[str]], Tags]:
    """Tags by all components of the pipeline, for one document after another."""
    pipeline = spacy.load(folder)

    def tags(documents: list[str]) -> Tags:
        docs = [pipeline(document) for document in documents]
        return [[(token.text, token.tag_) for token in doc if not token.is_space] for doc in docs]

    return tags


def tags_of(tagger: Tagger) -> Callable[[list[str]], Tags]:
    """Tags by one of the taggers of the package."""
    return lambda documents: [[(word.text, word.tag) for word in words] for words in tagger.tag(documents)]


def compare(report: Report, documents: list[str], network: Network, *, rounds: int) -> None:
    """Time all variants and report them."""
    found: dict[str, Tags] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "pipeline")
        save_pipeline(documents, network, folder)
        makers: dict[str, Callable[[], Callable[[list[str]], Tags]]] = {
            WHOLE: lambda: whole_pipeline(folder),
            OURS: lambda: tags_of(SpacyTagger(folder)),
            "english": lambda: tags_of(LinearTagger.shipped()),
            "english warm": functools.cache(lambda: tags_of(LinearTagger.shipped())),
            "lexicon": lambda: tags_of(LexiconTagger()),
            "lexicon warm": functools.cache(lambda: tags_of(LexiconTagger())),
        }

        def prepare(name: str) -> Work:
            tags = makers[name]()
            given = documents[: len(documents) // SLOW_PART] if name in (WHOLE, OURS) else documents
            num_words = sum(len(document.split()) for document in given)

            def work() -> float:
                with collector_paused():
                    found[name] = tags(given)
                return float(num_words)

            return work

        seconds = take_turns({name: functools.partial(prepare, name) for name in makers}, rounds=rounds)
    assert found[OURS] == found[WHOLE], "our tags are not those of the whole pipeline"
    num_tags = len({tag for words in found[OURS] for _, tag in words})
    report.text(f"{WHOLE} and {OURS} find the same words with the same tags, of {num_tags} kinds.\n")
    rows = []
    for name, taken in seconds.items():
        cpu, wall = (
            ratios([getattr(reference, clock) for reference in seconds[WHOLE]], [getattr(s, clock) for s in taken])
            for clock in ("cpu", "wall")
        )
        speed = spread([1 / s.cpu for s in taken])
        rows.append((name, f"{speed.median:,.0f} [{speed.low:,.0f}, {speed.high:,.0f}]", cpu, wall))
        report.record(variant=name, words_per_cpu_second=speed, speedup_cpu=cpu, speedup_wall=wall)
    report.text(table(["variant", "words a CPU second", "speed-up (CPU)", "speed-up (wall)"], rows) + "\n")


def main() -> None:
    """Compare all variants on the documents that the command line names."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"folder that holds {NOVELS}; not needed for --quick")
    parser.add_argument("--documents", type=int, default=1024, metavar="N", help="how many (default 1024)")
    options = parser.parse_args()
    require_data(parser, options)
    documents = stories(8) if options.quick else novels(options.data, options.documents)
    report = Report("Part-of-speech importance", save=options.save)
    num_words = sum(len(document.split()) for document in documents)
    report.text(f"{len(documents)} documents, {num_words:,} words as separated by white space.\n")
    compare(report, documents, TOY if options.quick else LIKE_SM, rounds=options.repeats)
    report.close()


if __name__ == "__main__":
    main()
