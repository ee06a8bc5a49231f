"""A bundle: one folder that holds all stages of a cascade, their tokenizer and a model card.

<folder>/
  cascade.json                     what the stages are together, see `BundleContent.described`
  stage_1/ ... stage_K/            config.json and one set of weights, a checkpoint like any other
  tokenizer.json
  checksums.json                   checksums of all files above, which reveal a damaged or mixed-up copy
  README.md                        the model card, for readers; it may be edited

"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cascaded_dllm.atomic import complete_folder
from cascaded_dllm.errors import CheckpointError, ConfigError, OutputError
from cascaded_dllm.file_names import BUNDLE_FILE, TOKENIZER_FILE
from cascaded_dllm.model.disk_errors import disk_errors
from cascaded_dllm.model.integrity import CHECKSUMS, checkpoint_fault, listed_files, write_checksums
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import WEIGHTS_FILES, StageSettings, Weights
from cascaded_dllm.sample.model_card import model_card, require_license
from cascaded_dllm.text.tokenizer import Tokenizer

FORMAT = "cascaded-dllm-cascade/1"
"""Written into the cascade.json of every bundle."""

BUILT_IN: Mapping[str, Path] = {"stories": Path(__file__).parent / "built_in" / "stories"}
"""Bundles that come with this package, by name; a folder of the same name is written ./stories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContent:
    """A cascade as a bundle stores it.

    Attributes:
        models: networks of the stages, first stage first.
        settings: settings of every stage, with its lengths; fewer than `models` if the cascade was not loaded from
            checkpoints.
        tokenizer: the tokenizer of all stages.
        weights: which weights of their checkpoints the models have.
        packing: packing of the windows that the stages were trained on; empty if unknown.
    """

    models: tuple[ScoreModel, ...]
    settings: tuple[StageSettings, ...]
    tokenizer: Tokenizer
    weights: Weights
    packing: str

    @property
    def is_flat(self) -> bool:
        """Whether it is a flat model."""
        return self.settings[0].stage == 0

    @property
    def stage_lengths(self) -> tuple[int, ...]:
        """Tokens that every stage writes, according to its checkpoint."""
        lengths = self.settings[0].stage_lengths
        return lengths[-1:] if self.is_flat else lengths[: len(self.settings)]

    def described(self) -> dict[str, Any]:
        """The content of cascade.json."""
        return {
            "format": FORMAT,
            "weights": self.weights,
            "stages": stage_folders(len(self.settings)),
            "stage_lengths": list(self.stage_lengths),
            "trained_lengths": list(self.settings[0].stage_lengths),
            "is_flat": self.is_flat,
            "packing": self.packing,
            "tokenizer": self.tokenizer.fingerprint,
        }

    def require_savable(self) -> None:
        """Checks that the models have their trained weights, and that their settings are known.

        Raises:
            ConfigError: the cascade does not come from checkpoints, or its weights are rounded.
        """
        if len(self.settings) < len(self.models):
            raise ConfigError(
                f"the cascade has {len(self.models)} stages and the settings of {len(self.settings)}, since it was put "
                "together from samplers; only what Cascade.from_pretrained has loaded can be saved"
            )
        for number, model in enumerate(self.models, start=1):
            others = {tensor.dtype for tensor in model.state_dict().values()} - {torch.float32}
            if others:
                listed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
                raise ConfigError(
                    f"stage {number} keeps weights in {listed}, rounded for sampling, and a bundle holds those that "
                    "were trained; load the cascade with dtype=torch.float32 and save that one"
                )


def stage_folders(num_stages: int) -> list[str]:
    """Names of the folders of the stages in a bundle."""
    return [f"stage_{number}" for number in range(1, num_stages + 1)]


def save_bundle(folder: Path, content: BundleContent, *, name: str | None = None, license: str | None = None) -> None:
    """Writes a bundle, whole or not at all.

    Args:
        folder: a path at which there is nothing yet.
        content: the cascade; the caller has called its `require_savable`.
        name: path or hub id under which the model card loads the bundle; the name of the folder by default.
        license: identifier of a licence, for the model card; by default the card names none.

    Raises:
        ConfigError: the licence is not an identifier.
        OutputError: the folder exists, or cannot be written.
    """
    require_license(license)
    if folder.exists():
        raise OutputError(f"{folder} exists, and a bundle overwrites nothing; choose another folder")
    description = content.described()
    with complete_folder(folder, exclusive=True) as new, disk_errors():
        for stage, model, settings in zip(description["stages"], content.models, content.settings, strict=True):
            (new / stage).mkdir()
            (new / stage / "config.json").write_text(settings.to_json(), encoding="utf-8")
            weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
            save_file(weights, new / stage / WEIGHTS_FILES[content.weights])
        content.tokenizer.save(new)
        (new / BUNDLE_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        write_checksums(new)
        shown = name or (f"./{folder.name}" if folder.name in BUILT_IN else folder.name)
        card = model_card(shown, description, content.models, content.settings, content.tokenizer, license=license)
        (new / "README.md").write_text(card, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on the disk whose files are as they were written.

    Attributes:
        folder: where it is.
        description: the content of its cascade.json.
    """

    folder: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """The bundle in `folder`.

        Raises:
            CheckpointError: a file is missing or damaged, or the bundle is of another format.
        """
        if (found := checkpoint_fault(folder)) is not None:
            raise _damaged(folder, found)
        path = folder / BUNDLE_FILE
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            written_by = description["format"]
            if written_by == FORMAT and not _is_sound(description["weights"], description["stages"]):
                raise ValueError("stages or weights")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} lacks or misstates {error}; make the bundle anew") from error
        if written_by != FORMAT:
            raise CheckpointError(
                f"{path} is of the format {written_by!r}, and this version reads {FORMAT!r}; use the version of this "
                "package that wrote it, or make the bundle anew"
            )
        opened = cls(folder, description)
        # Files that checksums.json does not list were not compared.
        listed = listed_files(folder)
        if unlisted := [name for name in opened.files if name not in listed]:
            raise _damaged(folder, f"{CHECKSUMS} does not list {', '.join(unlisted)}")
        return opened

    @property
    def files(self) -> list[str]:
        """All files that are loaded from it, as paths relative to `folder`."""
        names = ("config.json", WEIGHTS_FILES[self.description["weights"]])
        of_stages = [f"{stage}/{name}" for stage in self.description["stages"] for name in names]
        return [BUNDLE_FILE, TOKENIZER_FILE, *of_stages]

    @property
    def stage_paths(self) -> list[Path]:
        """The checkpoints of the stages, first stage first."""
        return [self.folder / name for name in self.description["stages"]]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of all stages."""
        return self.folder / TOKENIZER_FILE

    def weights(self, wanted: Weights | None) -> Weights:
        """The kind of weights that it holds, once it is known to be the wanted one; None wants either.

        Raises:
            ConfigError: it holds the other kind.
        """
        held: Weights = self.description["weights"]
        if wanted not in (None, held):
            raise ConfigError(
                f"weights is {wanted!r}, and the bundle {self.folder} holds only the {held} weights; leave weights "
                f"out, or make a bundle with --weights {wanted} from the runs"
            )
        return held

    def require_same(self, content: BundleContent) -> None:
        """Checks that what was loaded from the bundle agrees with its cascade.json.

        Raises:
            CheckpointError: they differ.
        """
        found = content.described()
        differing = sorted(key for key in found if self.description.get(key) != found[key])
        if differing:
            listed = "; ".join(f"{key} {self.description.get(key)!r} and {found[key]!r}" for key in differing)
            raise CheckpointError(
                f"{self.folder / BUNDLE_FILE} and what is loaded with it differ: {listed}; leave --tokenizer out, or "
                "make the bundle anew"
            )


def _damaged(folder: Path, found: str) -> CheckpointError:
    return CheckpointError(f"the bundle {folder} is damaged: {found}; copy it again, or make it anew")


def _is_sound(weights: Any, stages: Any) -> bool:
    """Whether cascade.json names a known kind of weights, and at least one stage, in the folders of stages."""
    has_stages = isinstance(stages, list) and len(stages) > 0 and stages == stage_folders(len(stages))
    return has_stages and weights in tuple(WEIGHTS_FILES)
