"""A judge of your own: a small causal language model, trained offline on a preprocessed corpus."""
