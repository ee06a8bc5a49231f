"""Values of a JSON file by name, each checked: an error says where the value is and what it must be."""

from collections.abc import Mapping, Sequence
from typing import final

from cascaded_dllm.errors import DataError

LARGEST = 1e150
"""The largest number that a report computes with; its square is still finite."""

_SHOWN_CHARACTERS = 60


@final
class Fields:
    """A JSON object whose values are read by name and checked.

    Args:
        values: the object.
        where: the file and the place in it, for messages; ends with ": " or ".".
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values, self._where = values, where

    def wrong(self, name: str, wanted: str) -> DataError:
        """The error that `name` is not what it must be."""
        value = f"is {shown(self._values[name])}" if name in self._values else "is missing"
        return DataError(f"{self._where}{name} {value}; it must be {wanted}; run the study again to write it anew")

    def is_null(self, name: str) -> bool:
        """Whether `name` is present and null."""
        return name in self._values and self._values[name] is None

    def text(self, name: str) -> str:
        """A string.

        Raises:
            DataError: it is not one.
        """
        match self._values.get(name):
            case str() as value:
                return value
        raise self.wrong(name, "a string")

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """A string that is one of `choices`.

        Raises:
            DataError: it is not one of them.
        """
        value = self._values.get(name)
        if isinstance(value, str) and value in choices:
            return value
        raise self.wrong(name, f"one of {', '.join(choices)}")

    def integer(self, name: str, *, at_least: int, at_most: float | int = LARGEST) -> int:
        """A whole number.

        Raises:
            DataError: it is not one, less than `at_least` or more than `at_most`.
        """
        match self._values.get(name):
            case int() as value if not isinstance(value, bool) and at_least <= value <= at_most:
                return value
        raise self.wrong(name, f"a whole number from {at_least} to {at_most:g}")

    def number(self, name: str) -> float:
        """A number, as `finite` accepts it.

        Raises:
            DataError: it is not one.
        """
        value = finite(self._values.get(name))
        if value is None:
            raise self.wrong(name, f"a number of at most {LARGEST:g} in size")
        return value

    def number_or_null(self, name: str) -> float | None:
        """A number, or None for null."""
        return None if self.is_null(name) else self.number(name)

    def optional_number(self, name: str) -> float | None:
        """A number; None for null, or if there is no such name."""
        return self.number_or_null(name) if name in self._values else None

    def mapping(self, name: str) -> Mapping[str, object]:
        """An object, whose values are not checked.

        Raises:
            DataError: it is not one.
        """
        match self._values.get(name):
            case dict() as value:
                return value
        raise self.wrong(name, "an object")

    def fields(self, name: str) -> "Fields":
        """An object whose values are checked in turn."""
        return Fields(self.mapping(name), f"{self._where}{name}.")

    def numbers(self, name: str) -> dict[str, float | None]:
        """An object of numbers or nulls."""
        inner = self.fields(name)
        return {key: inner.number_or_null(key) for key in self.mapping(name)}

    def optional_numbers(self, name: str) -> dict[str, float | None]:
        """An object of numbers or nulls; empty if there is no such name."""
        return self.numbers(name) if name in self._values else {}

    def texts(self, name: str) -> dict[str, str]:
        """An object of strings."""
        inner = self.fields(name)
        return {key: inner.text(key) for key in self.mapping(name)}

    def entries(self, name: str) -> list[object]:
        """A list, whose entries are not checked.

        Raises:
            DataError: it is not one.
        """
        match self._values.get(name):
            case list() as value:
                return value
        raise self.wrong(name, "a list")

    def listed(self, name: str) -> list["Fields"]:
        """A list of objects whose values are checked in turn."""
        return self.among(self.entries(name), name)

    def among(self, values: Sequence[object], name: str) -> list["Fields"]:
        """The entries `values` of the list `name`, as objects whose values are checked in turn.

        Raises:
            DataError: one of them is not an object.
        """
        found = []
        for place, value in enumerate(values):
            where = f"{self._where}{name}[{place}]"
            if not isinstance(value, dict):
                raise DataError(
                    f"{where} is {shown(value)}; it must be an object; run the study again to write it anew"
                )
            found.append(Fields(value, f"{where}."))
        return found


def finite(value: object) -> float | None:
    """`value` as a float, or None if it is not a number or larger than `LARGEST` in size.

    Numbers smaller than 1 / `LARGEST` in size, whose squares would be zero or nearly so, become 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return None
    return float(value) if abs(value) >= 1 / LARGEST else 0.0


def shown(value: object) -> str:
    """`value` for a message, shortened."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
