from cascaded_dllm.text.listing import SEPARATOR, listing


def test_every_text_is_followed_by_the_separator():
    assert listing(["one", "two\nlines", ""]) == f"one\n{'=' * 80}\ntwo\nlines\n{'=' * 80}\n\n{'=' * 80}\n"
    assert listing([]) == ""
    assert SEPARATOR == "=" * 80
