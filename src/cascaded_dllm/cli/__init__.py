"""The command line `cdllm`: a module for each command, and what commands share."""
