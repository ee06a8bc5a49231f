"""The judge of a study: figures of different arms can be compared only if the same judge has read their texts."""

from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.file_names import DONE
from cascaded_dllm.study.folder import StudyFolder


def load_judge(folder: StudyFolder, source: str) -> Judge:
    """The judge of a study, which is remembered when it is first loaded.

    Args:
        folder: of the study.
        source: a folder or a hub id.

    Raises:
        ConfigError: it cannot be loaded, or is not the one of this name that has read texts of the study before.
        MissingExtraError: transformers is not installed.
    """
    judge = Judge.load(source)
    part, found = f"judges/{fingerprint({'source': source})}", judge.fingerprint()
    record = folder.record(part)
    if record is None:
        folder.settle(part, {"of": found, "status": DONE, "source": source})
    elif record["of"] != found:
        raise ConfigError(
            f"the judge {source!r} is not the one that has read texts of this study before: it has other weights or "
            "another tokenizer; put the former one back, or give this one another name (judge: ...), and all texts "
            "are read again"
        )
    return judge
