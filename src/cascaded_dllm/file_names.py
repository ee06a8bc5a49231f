"""Names of files, and words in them, on which parts of the package agree that do not import one another."""

TOKENIZER_FILE = "tokenizer.json"
"""Beside preprocessed data and in every checkpoint; also what the tokenizers library calls its own files."""

RUN_CONFIG_FILE = "config.yaml"
"""The resolved configuration in a run folder, which tells a run folder from others."""

BUNDLE_FILE = "cascade.json"
"""What a bundle of all stages is, which tells its folder from others."""

RESULTS_FILE = "results.json"
"""All that a study has found, for its report."""

RESULTS_FORMAT = "cascaded-dllm-study/1"
"""What it says of itself."""

DONE, DIVERGED, FAILED, MISSING = STATUSES = ("done", "diverged", "failed", "missing")
"""How an arm stands in it; the first three also are what is recorded of the parts of a study."""
