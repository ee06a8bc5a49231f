"""Preprocessed texts on disk, and the way from them to the batches of one stage."""
