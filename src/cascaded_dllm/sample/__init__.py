"""Sampling: predictors, the loop over time as a generator of states, and the loop over stages."""
