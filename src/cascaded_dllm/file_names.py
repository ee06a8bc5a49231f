"""Names of files on which parts of the package agree that do not import one another."""

TOKENIZER_FILE = "tokenizer.json"
"""Beside preprocessed data and in every checkpoint; also what the tokenizers library calls its own files."""

RUN_CONFIG_FILE = "config.yaml"
"""The resolved configuration in a run folder, which tells a run folder from others."""

BUNDLE_FILE = "cascade.json"
"""What a bundle of all stages is, which tells its folder from others."""
