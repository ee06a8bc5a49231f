from cascaded_dllm.importance.base import Scorer, Word, align
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer


def test_sub_words_inherit_and_gaps_get_the_background():
    # "unhappy dog!" as "un" "happy" " dog" "!"
    words = [Word(0, 7, 5.0), Word(8, 11, 3.0)]
    assert align(words, [(0, 2), (2, 7), (7, 11), (11, 12)], -100.0) == [5.0, 5.0, 3.0, -100.0]


def test_token_over_several_words_takes_the_one_it_shares_most_with():
    words = [Word(0, 1, 1.0), Word(1, 4, 2.0), Word(4, 6, 3.0)]
    assert align(words, [(0, 6)], 0.0) == [2.0]


def test_ties_go_to_the_first_word():
    assert align([Word(0, 2, 1.0), Word(2, 4, 2.0)], [(0, 4), (1, 3)], 0.0) == [1.0, 1.0]


def test_pieces_of_one_character_all_inherit():
    # An emoji of four bytes in a word of its own: every byte token carries the same character.
    assert align([Word(3, 4, 9.0)], [(0, 3), (3, 4), (3, 4), (3, 4), (4, 5)], -1.0) == [-1.0, 9.0, 9.0, 9.0, -1.0]


def test_long_word_is_seen_by_all_its_tokens():
    offsets = [(i, i + 1) for i in range(10)]
    assert align([Word(1, 9, 4.0)], offsets, 0.0) == [0.0, *[4.0] * 8, 0.0]


def test_token_without_characters_gets_the_background():
    assert align([Word(0, 5, 4.0)], [(2, 2)], 0.0) == [0.0]


def test_no_words_and_no_tokens():
    assert align([], [(0, 1), (1, 2)], -100.0) == [-100.0, -100.0]
    assert align([Word(0, 1, 1.0)], [], -100.0) == []


def test_scorers_follow_the_protocol():
    class NoTagger:
        name = "none"

        def tag(self, texts):
            return [[] for _ in texts]

    assert isinstance(PosScorer(NoTagger()), Scorer)
    assert isinstance(TfidfScorer(DocumentFrequencies(1, {})), Scorer)
