"""The command line: `cdllm preprocess | train | sample | evaluate | quickstart`."""
