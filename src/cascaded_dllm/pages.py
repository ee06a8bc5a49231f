"""Parts that HTML pages share: escaping of text, and the colours of stages."""

import html
from collections.abc import Sequence

# Backgrounds of the first and the last coloured stage; the others are interpolated.
_LIGHT = ((10, 74, 143), (207, 228, 251))
_DARK = ((140, 200, 255), (31, 63, 99))
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

Colour = tuple[int, int, int]


def escaped(text: str) -> str:
    """`text` escaped for a page, as text or as the value of an attribute.

    A carriage return would be read as a line feed, so it becomes a numeric reference. HTML cannot contain the character
    U+0000, so its symbol U+2400 replaces it.
    """
    return html.escape(text.replace("\0", "\u2400")).replace("\r", "&#13;")


def stage_colours(count: int, *, is_dark: bool) -> list[tuple[Colour, Colour]]:
    """Background and text colour of the stages 1..`count`, from the strongest to the faintest.

    All are one hue of falling strength, so that the order is visible without colour vision and every text is readable.
    """
    strong, weak = _DARK if is_dark else _LIGHT
    backgrounds = [_between(strong, weak, place / max(count - 1, 1)) for place in range(count)]
    return [(back, max(_BLACK, _WHITE, key=lambda text: contrast(text, back))) for back in backgrounds]


def stage_styles(count: int) -> str:
    """CSS rules for texts of the stages 1..`count`, in light and in dark mode."""

    def rules(*, is_dark: bool) -> str:
        numbered = enumerate(stage_colours(count, is_dark=is_dark), start=1)
        return "\n".join(
            f".s{stage} {{ background: #{bytes(back).hex()}; color: #{bytes(text).hex()}; }}"
            for stage, (back, text) in numbered
        )

    return f"{rules(is_dark=False)}\n@media (prefers-color-scheme: dark) {{\n{rules(is_dark=True)}\n}}"


def _between(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast ratio of two colours by WCAG 2, from 1 to 21; text needs 4.5."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Sequence[int]) -> float:
    """The relative luminance of an sRGB colour, 0 to 1."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
