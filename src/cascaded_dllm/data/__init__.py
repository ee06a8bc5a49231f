"""Preprocessed texts on disk, and how they become the batches of a stage."""
