from cascaded_dllm.text.listing import SEPARATOR, listing, shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer


def test_every_text_is_followed_by_the_separator():
    assert listing(["one", "two\nlines", ""]) == f"one\n{'=' * 80}\ntwo\nlines\n{'=' * 80}\n\n{'=' * 80}\n"
    assert listing([]) == ""
    assert SEPARATOR == "=" * 80


def test_ends_of_text_are_tokens_where_they_are_spelt_out():
    tokenizer = Tokenizer.train(["the cat saw the dog"] * 3, vocab_size=270)
    cat, end = tokenizer.encode("the cat").ids, tokenizer.eos_id
    assert shown_ids("the cat<|endoftext|><|endoftext|>the cat", tokenizer) == (*cat, end, end, *cat)
    assert shown_ids("", tokenizer) == ()
    assert tokenizer.decode(shown_ids("a<|endoftext|>b", tokenizer)) == "a<|endoftext|>b"
