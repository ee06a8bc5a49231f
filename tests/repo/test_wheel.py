"""The wheel is complete: installed into a clean environment, it runs from another folder without the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.repo.source_tree import CHECKOUT, PACKAGE_ROOT, project_files

pytestmark = pytest.mark.slow

DESCRIBE = """
import importlib.metadata, importlib.resources, json, pathlib, cascaded_dllm
root = importlib.resources.files("cascaded_dllm")
print(json.dumps({
    "folder": str(pathlib.Path(cascaded_dllm.__file__).parent),
    "version": importlib.metadata.version("cascaded-dllm"),
    "configs": sorted(path.name for path in root.joinpath("configs").iterdir()),
}))
"""


PREPROCESS = """
import pathlib
from cascaded_dllm.importance.tfidf import TfidfScorer, document_frequencies
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer
texts = [f"The {colour} fox saw a {size} hare near the mill." for colour in ("red", "grey") for size in ("big", "shy")]
documents = [Document(str(index), text) for index, text in enumerate(texts)]
scorer = TfidfScorer(document_frequencies(documents))
tokenizer = Tokenizer.train(texts, 300)
corpus = Corpus.from_documents("x", documents)
print(preprocess_corpus(corpus, out_dir=pathlib.Path("data"), split="y", tokenizer=tokenizer, scorer=scorer))
"""


def execute(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=240)


def run(*command: str | Path, cwd: Path) -> str:
    done = execute(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; the build uses the installed hatchling, so that it needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT, cwd=folder)
    [path] = folder.glob("cascaded_dllm-*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel, and borrows only the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    # A path line makes the libraries importable but does not follow their own .pth files, among them the one of the
    # editable installation, which would lead back to the checkout.
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_wheel_holds_every_file_of_the_package_and_the_configs(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    # From the disk and not from git: an ignored folder of the package would be missing from both.
    package = [path for path in PACKAGE_ROOT.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    configs = [path for path in project_files() if path.is_relative_to(CHECKOUT / "configs")]
    expected = {path.relative_to(CHECKOUT / "src").as_posix() for path in package}
    expected |= {f"cascaded_dllm/{path.relative_to(CHECKOUT).as_posix()}" for path in configs}
    assert configs, "the configurations lie in configs/"
    assert {name for name in inside if ".dist-info/" not in name} == expected
    assert "cascaded_dllm/py.typed" in inside, "without it type checkers ignore the annotations"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)


def test_installed_package_runs_from_another_folder(clean_python: Path, tmp_path: Path) -> None:
    described = json.loads(run(clean_python, "-c", DESCRIBE, cwd=tmp_path))
    assert Path(described["folder"]).is_relative_to(clean_python.parents[1])
    assert "cascade_config.yaml" in described["configs"]
    command = clean_python.with_name("cdllm")
    assert "train" in run(command, "--help", cwd=tmp_path)
    assert described["version"] in run(command, "--version", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_installed_package_trains_from_another_folder(clean_python: Path, tmp_path: Path) -> None:
    """Two steps of the tiny model: the configurations that the command composes come out of the wheel."""
    data = run(clean_python, "-c", PREPROCESS, cwd=tmp_path).strip()
    overrides = ["model=tiny", f"data.path={data}", "run_dir=run", "stage_lengths=[4,8]", "device=cpu"]
    overrides += ["training.num_steps=2", "training.batch_size=2", "sampling.num_samples=0"]
    command = clean_python.with_name("cdllm")
    run(command, "train", *overrides, cwd=tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "latest" / "model.safetensors").is_file()
    refused = execute(command, "train", *overrides, "training.nonsense=1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "training.nonsense" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_source_archive_holds_the_tests(tmp_path: Path) -> None:
    import tarfile

    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, CHECKOUT, cwd=tmp_path)
    [path] = tmp_path.glob("cascaded_dllm-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"tests/conftest.py", "Makefile", "constraints.txt", ".ci/run", "pyproject.toml"} <= names
    assert not any(name.startswith((".venv/", "data/", "runs/")) for name in names)
