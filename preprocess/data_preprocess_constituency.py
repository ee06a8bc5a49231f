"""One shard of a corpus with importance by the method constituency; see --help."""

from cascaded_dllm.cli.preprocess_entry import main

if __name__ == "__main__":
    main("constituency")
