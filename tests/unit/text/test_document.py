import dataclasses

import pytest

from cascaded_dllm.text.document import Document


def test_document_cannot_change() -> None:
    document = Document("a:0", "Hello.")
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.text = "Bye."  # type: ignore[misc]
    assert document == Document(id="a:0", text="Hello.")
