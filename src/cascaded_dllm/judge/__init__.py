"""A judge of one's own: a small autoregressive language model, trained on a preprocessed corpus, offline."""
