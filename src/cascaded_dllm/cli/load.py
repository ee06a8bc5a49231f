"""The cascade that the options of a command name."""

from collections.abc import Sequence
from pathlib import Path

from cascaded_dllm.cli.options import parse_lengths
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.loading import bundle_folder


def load_cascade(
    stages: Sequence[str | Path] | None,
    *,
    bundle: str | None = None,
    lengths: str | Sequence[int] | None,
    tokenizer: str | None,
    weights: str | None,
    device: str,
    dtype: str = "float32",
    compile: bool = False,
) -> Cascade:
    """The cascade that the `--stage` options or `--cascade` name; `lengths` may be the text of `--lengths`.

    Raises:
        ConfigError: neither or both are given, or a value cannot be read.
    """
    known = parse_lengths(lengths) if isinstance(lengths, str) else lengths
    if stages and bundle is not None:
        raise ConfigError(f"--stage is given, and --cascade is {bundle}, which holds all stages; leave one out")
    if not stages and bundle is None:
        raise ConfigError(
            "no --stage is given; name at least 1 run folder, checkpoint or hub id, or a bundle of all stages with "
            "--cascade; --cascade stories is built in"
        )
    return Cascade.from_pretrained(
        [str(path) for path in stages or ()] if bundle is None else bundle_folder(bundle),
        lengths=known,
        tokenizer=tokenizer,
        weights=weights,  # type: ignore[arg-type]
        device=device,
        dtype=dtype,
        compile=compile,
    )


def packing_of(cascade: Cascade, asked: str | None) -> str:
    """How the windows that a cascade is measured on are cut: as `asked`, or else as its checkpoints say.

    Raises:
        ConfigError: neither says it.
    """
    packing = asked or cascade.packing
    if not packing:
        raise ConfigError("the checkpoints do not say how windows are cut; give --packing stream or document")
    return packing
