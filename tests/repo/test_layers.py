"""A module imports only what lies below it, each library stays in its room, and importing does nothing else."""

import ast
import functools
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.repo.source_tree import CHECKOUT, PACKAGE, Import, Module, in_every_module, modules, part_of

# What each part may import of ours, lowest first. Parts of one layer are independent unless listed here.
BASE = {
    "errors",
    "checks",
    "file_names",
    "rng",
    "pid_space",
    "os_errors",
    "atomic",
    "lock_owner",
    "run_lock",
    "processes",
    "overrides",
    "versions",
    "hub_requests",
}
PARTS = {"numerics", "memory", "text", "cascade", "diffusion", "model", "importance", "data", "preprocess"}
CONFIG = {"config", "config_groups"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "checks": {"errors"},
    "file_names": set(),
    "rng": set(),
    "pid_space": set(),
    "os_errors": {"errors"},
    "atomic": {"errors", "os_errors", "pid_space"},
    "lock_owner": {"atomic", "pid_space"},
    "run_lock": {"errors", "os_errors", "atomic", "lock_owner"},
    "processes": set(),
    "overrides": {"errors"},
    "versions": set(),
    "hub_requests": set(),
    "pages": set(),
    "numerics": set(),
    "blocked_softmax": set(),
    "memory": set(),
    "text": BASE,
    "cascade": BASE,
    "diffusion": BASE | {"numerics", "blocked_softmax"},
    "model": BASE | {"numerics", "blocked_softmax"},
    "importance": BASE | {"text"},
    "data": BASE | {"cascade"},
    "preprocess": BASE | {"pages", "text", "cascade", "importance", "data"},
    "train": BASE | PARTS,
    "sample": BASE | PARTS,
    "evaluate": BASE | PARTS | {"train"},
    "judge": BASE | PARTS | {"train", "evaluate"},
    "report": BASE | {"pages"},
    "typed_settings": {"errors"},
    "config_groups": set(),
    "config": {"errors", "checks", "typed_settings", "config_groups"},
    "study_config": {"errors", "checks", "overrides", "typed_settings"},
    "assemble.start": BASE | PARTS | {"train", *CONFIG},
    "assemble.data": BASE | PARTS | {*CONFIG},
    "assemble.devices": BASE | PARTS | {"train"},
    "assemble.prefixes": BASE | PARTS | {"train", "sample", *CONFIG, "assemble.rewriting"},
    "assemble.rewriting": BASE | PARTS | {"train", "sample", *CONFIG},
    "assemble.stage": BASE | PARTS | {"sample", *CONFIG},
    "assemble.snapshot": BASE | PARTS | {"train", "sample", "evaluate", *CONFIG},
    "assemble.windows": BASE | PARTS | {"sample", *CONFIG},
    "assemble.models": BASE | PARTS | {"sample", "evaluate", *CONFIG, "assemble.stage", "assemble.start"},
    "assemble.bound": BASE | PARTS | {"train", "sample", "evaluate", *CONFIG, "assemble.windows"},
    "assemble.resumable": BASE | PARTS | {"train", *CONFIG, "assemble.start"},
    "assemble.gap": BASE | PARTS | {"train", "sample", "evaluate"},
    "assemble": set(),
    "assemble.run": BASE
    | PARTS
    | {"train", "sample", "evaluate", *CONFIG}
    | {
        "assemble.resumable",
        "assemble.data",
        "assemble.devices",
        "assemble.inputs",
        "assemble.prefixes",
        "assemble.snapshot",
        "assemble.stage",
        "assemble.start",
    },
    "assemble.scorers": BASE | PARTS,
    "assemble.preprocess": BASE | PARTS | {"assemble.scorers"},
    "assemble.inputs": BASE
    | PARTS
    | {"train", "sample", *CONFIG}
    | {"assemble.data", "assemble.models", "assemble.windows"},
    "assemble.from_flat": BASE | PARTS | {*CONFIG},
    "assemble.judge": BASE | PARTS | {"evaluate", "judge", *CONFIG, "assemble.windows"},
    "study": BASE
    | PARTS
    | {"train", "sample", "evaluate", *CONFIG, "study_config"}
    | {"assemble.run", "assemble.bound", "assemble.devices", "assemble.inputs", "assemble.preprocess"}
    | {"assemble.rewriting", "assemble.stage", "assemble.start"},
    "demo": BASE | {"pages", "memory", "typed_settings", "text", "cascade", "diffusion", "sample"},
    "text_scorer": BASE | PARTS | {"train", "sample", "evaluate"},
    "harness": BASE | PARTS | {"sample", "text_scorer"},
    "cli": BASE
    | PARTS
    | {"train", "sample", "evaluate", "judge", "report", *CONFIG, "study", "study_config", "demo"}
    | {"assemble.run", "assemble.bound", "assemble.devices", "assemble.from_flat", "assemble.gap", "assemble.judge"}
    | {"assemble.inputs", "assemble.preprocess", "assemble.scorers", "assemble.start", "assemble.windows"},
    "__main__": {"cli"},
}

# Where each library may be imported, as parts or modules; "" is everywhere.
ASSEMBLED_WITH_TENSORS = {part for part in MAY_IMPORT if part.startswith("assemble.")} - {
    *("assemble.data", "assemble.preprocess", "assemble.scorers")
}
WITH_TENSORS = (
    *("numerics", "blocked_softmax", "memory", "diffusion", "model", "train", "sample", "evaluate", "judge"),
    *sorted(ASSEMBLED_WITH_TENSORS),
    *("text_scorer", "harness", "study", "demo", "cli"),
)
# Modules with tensors among text: a scorer imports them when it loads its model.
SENTENCES = ("importance.sentence_model", "importance.sentence_tokens")
ROOMS: dict[str, tuple[str, ...]] = {
    "torch": (*SENTENCES, *WITH_TENSORS),
    "numpy": ("rng", "text", "cascade", "importance", "data", "preprocess", *WITH_TENSORS),
    "jaxtyping": ("rng", "text", "importance", "data", "preprocess", *WITH_TENSORS),
    "tokenizers": ("text.tokenizer", "text.tokenizer_canonical", "text.tokenizer_files"),
    "huggingface_hub": (
        "importance.sentence_files",
        "text.tokenizer_files",
        "text.hub",
        "hub_requests",
        "model",
        "sample.bundle_hub",
    ),
    "yaml": ("model.stored_stage", "train.run_folder", "cli.compose", "cli.study", "cli.study_file"),
    "safetensors": (
        "hub_requests",
        "model",
        "train",
        "sample.bundle",
        "judge.network",
    ),
    "pyarrow": ("text.lines", "text.parquet_rows", "data.shards", "data.row_groups", "preprocess.parts"),
    "datasets": ("text.hub",),
    "hydra": ("cli",),
    "omegaconf": ("cli", "assemble"),
    "rich": ("cli",),
    "typer": ("cli",),
    "datatrove": ("preprocess.executors", "preprocess.on_slurm"),
    "lm_eval": ("harness",),
    "ray": ("preprocess.on_ray",),
    "sentence_transformers": ("importance.sentence_files", *SENTENCES),
    "sklearn": ("importance.keybert", "evaluate.mauve"),
    "scipy": ("importance.tagger_training",),
    "spacy": ("importance.english",),
    "textblob": ("importance.english",),
    "transformers": ("importance.sentence_files", "evaluate.generative_ppl", "judge.network"),
    "wandb": ("train.run_log",),
    "tensorboard": ("train.run_log",),
}
ADAPTS = {"harness": {"lm_eval"}}
DISTRIBUTIONS = {
    "lm_eval": "lm-eval",
    "huggingface_hub": "huggingface-hub",
    "hydra": "hydra-core",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# How a command joins the typer application of the CLI, the only thing that a module may do when imported.
REGISTERS = re.compile(r"^\w+\.(?:command\(.*\)|add_typer)$|^_register$")
TORCH_FREE = tuple(part for part in MAY_IMPORT if part not in WITH_TENSORS)


def own_target(imported: Import) -> str | None:
    """The part of ours that an import reaches, or None for a library."""
    return part_of(imported.target) or None if imported.target.split(".")[0] == PACKAGE else None


def library_target(imported: Import) -> str | None:
    top = imported.target.split(".")[0]
    return None if top == PACKAGE or top in sys.stdlib_module_names else top


def layer_faults(module: Module) -> list[str]:
    faults = []
    for imported in module.imports:
        target = own_target(imported)
        if target is None or target in {module.part, "__version__"}:
            continue
        if target not in MAY_IMPORT[module.part]:
            faults.append(f"{module.path.name}:{imported.line} {module.part} must not import {imported.target}")
    return faults


def room_faults(module: Module) -> list[str]:
    faults = []
    local_name = module.name.removeprefix(f"{PACKAGE}.")
    for imported in module.imports:
        library = library_target(imported)
        if library is None:
            continue
        rooms = ROOMS.get(library)
        if rooms is None:
            faults.append(f"line {imported.line}: {library} has no room yet; add it to ROOMS in {Path(__file__).name}")
        elif not any(local_name == room or local_name.startswith(f"{room}.") for room in rooms):
            faults.append(f"line {imported.line}: {library} belongs in {', '.join(rooms)}, not in {local_name}")
    return faults


def parsed(name: str, source: str) -> Module:
    return Module(f"{PACKAGE}.{name}", Path(f"{name.replace('.', '/')}.py"), ast.parse(source))


@functools.cache
def core_libraries() -> set[str]:
    """Import names of what a plain installation brings."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0].split("=")[0].strip() for requirement in project["dependencies"]}
    return {library for library in ROOMS if DISTRIBUTIONS.get(library, library) in names}


def early_imports(module: Module) -> list[str]:
    """Libraries that a plain installation does not bring and that are imported with the module."""
    # A module that is there for one library, and that no other one imports, needs it from its first line on.
    core = core_libraries() | ADAPTS.get(module.name.removeprefix(f"{PACKAGE}."), set())
    return [
        f"line {imported.line}: {imported.target}"
        for imported in module.imports
        if (library_target(imported) or "torch") not in core and not (imported.is_lazy or imported.is_for_types)
    ]


def test_modules_are_in_the_layer_table() -> None:
    unknown = {module.part for module in modules()} - {"", *MAY_IMPORT}
    assert unknown == set(), f"no layer yet; add it to MAY_IMPORT in {Path(__file__).name}"


def test_modules_import_only_layers_below() -> None:
    # The root re-exports the public names, lazily; see test_root_package_is_lazy.
    assert in_every_module(lambda module: layer_faults(module) if module.part else []) == []


def test_libraries_stay_in_their_rooms() -> None:
    assert in_every_module(room_faults) == []


def test_optional_libraries_are_imported_inside_functions() -> None:
    early = in_every_module(early_imports)
    assert early == [], "an optional library is imported where it is used, so that the core works without it"


def test_statements_at_module_level_only_define() -> None:
    assert in_every_module(lambda module: [f"line {e.lineno}: {ast.unparse(e)}" for e in effects(module)]) == []


def effects(module: Module) -> list[ast.stmt]:
    """Module-level statements that do something; registering a command is allowed in the CLI."""
    definitions = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)
    found: list[ast.stmt] = []
    for node in module.tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case ast.If(test=test) if ast.unparse(test) in {"TYPE_CHECKING", "__name__ == '__main__'"}:
                continue
            case ast.If(body=[ast.Raise()], orelse=[]) if not module.part:
                continue  # where the package does not run
            case ast.Expr(value=ast.Call(func=func)) if module.part == "cli" and REGISTERS.search(ast.unparse(func)):
                continue
        if not isinstance(node, definitions):
            found.append(node)
    return found


def test_mathematics_sees_no_network() -> None:
    parts = {"numerics", "blocked_softmax", "diffusion"}
    assert in_every_module(lambda module: network_names(module) if module.part in parts else []) == []


def network_names(module: Module) -> list[str]:
    """Mentions of torch's modules and parameters; functions of torch.nn.functional are fine."""
    forbidden = {"Module", "Parameter", "ModuleList", "Linear", "Embedding"}
    names = [node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]
    names += [imported.target.split(".")[-1] for imported in module.imports]
    return sorted(forbidden.intersection(names))


def test_every_library_is_declared() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    requirements = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {requirement.split(">")[0] for requirement in requirements}
    assert {DISTRIBUTIONS.get(library, library) for library in ROOMS} <= declared


def test_checks_find_what_they_look_for() -> None:
    upward = parsed("cascade.select", "from cascaded_dllm.train.step import step")
    assert layer_faults(upward) == ["select.py:1 cascade must not import cascaded_dllm.train.step.step"]
    assert layer_faults(parsed("assemble.data", "from cascaded_dllm.assemble.run import assemble_run")) != []
    assert layer_faults(parsed("assemble.run", "from cascaded_dllm.assemble.data import locate")) == []
    assert layer_faults(parsed("data.stages", "def f():\n    from cascaded_dllm import text")) != []
    assert layer_faults(parsed("data.stages", "from cascaded_dllm import cascade, __version__")) == []
    assert layer_faults(parsed("text.local", "from ..importance import base")) != []
    assert room_faults(parsed("text.local", "import torch")) != []
    assert room_faults(parsed("text.local", "import leftpad")) != []
    assert room_faults(parsed("text.local_files", "import pyarrow")) != []
    assert room_faults(parsed("text.parquet_rows", "import pyarrow.parquet as pq")) == []
    assert network_names(parsed("diffusion.process", "class P(torch.nn.Module): pass")) == ["Module"]
    assert len(effects(parsed("data.stages", "import os\nos.umask(0)\nfor i in (): pass"))) == 2
    assert len(effects(parsed("cli.main", "app.command('x')(print)\nbox.add_typer(app)\napp()"))) == 1


def run_python(script: str, *arguments: str, cwd: Path) -> str:
    """What a fresh interpreter prints; it starts in an empty folder, where a written file would be seen."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=cwd, check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


IMPORT_AND_LIST_TORCH = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"importing {name} imports torch")
"""

IMPORT_AND_COMPARE = """
import importlib, logging, os, random, sys, warnings
libraries, names = sys.argv[1].split(","), sys.argv[2:]
for library in libraries:  # so that what they do when imported is not taken for ours
    try:
        importlib.import_module(library)
    except ModuleNotFoundError:  # the name of something inside the module
        importlib.import_module(library.rpartition(".")[0])
import numpy, torch

def state():
    return {
        "environment": dict(os.environ),
        "folder": (os.getcwd(), os.listdir()),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy random": numpy.random.get_state()[1].tolist(),
        "torch random": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
    }

for name in names:
    before = state()
    importlib.import_module(name)
    changed = [key for key, value in state().items() if value != before[key]]
    if changed:
        sys.exit(f"importing {name} changes {changed}")
"""


def test_text_side_never_imports_torch(tmp_path: Path) -> None:
    with_tensors = {f"{PACKAGE}.{name}" for name in SENTENCES}
    names = [module.name for module in modules() if module.part in TORCH_FREE and module.name not in with_tensors]
    assert {"cascaded_dllm.errors", "cascaded_dllm.rng"} <= set(names)
    assert run_python(IMPORT_AND_LIST_TORCH, *names, cwd=tmp_path) == ""


def test_root_package_is_lazy(tmp_path: Path) -> None:
    script = "import sys, cascaded_dllm; print(sorted({'torch', 'numpy', 'tokenizers', 'typer'} & set(sys.modules)))"
    assert run_python(script, cwd=tmp_path) == "[]\n"


@pytest.mark.slow
def test_importing_every_module_changes_nothing(tmp_path: Path) -> None:
    early = [
        imported
        for module in modules()
        for imported in module.imports
        if not (imported.is_lazy or imported.is_for_types)
    ]
    libraries = ",".join(sorted({imported.target for imported in early if own_target(imported) is None}))
    names = [module.name for module in modules() if not module.name.endswith("__main__")]
    assert run_python(IMPORT_AND_COMPARE, libraries, *names, cwd=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
