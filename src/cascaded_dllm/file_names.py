"""File names, and words in files, that modules share without importing one another."""

TOKENIZER_FILE = "tokenizer.json"
"""The tokenizer beside preprocessed data and in every checkpoint; the tokenizers library uses the same name."""

RUN_CONFIG_FILE = "config.yaml"
"""The resolved configuration in a run folder; a folder that has it is a run folder."""

BUNDLE_FILE = "cascade.json"
"""The description of a bundle; a folder that has it is a bundle."""

RESULTS_FILE = "results.json"
"""The results of a study, for its report."""

RESULTS_FORMAT = "cascaded-dllm-study/1"
"""The format that `RESULTS_FILE` names."""

DONE, DIVERGED, FAILED, MISSING = STATUSES = ("done", "diverged", "failed", "missing")
"""The status of an arm in `RESULTS_FILE`; the first three are also recorded for the parts of a study."""
