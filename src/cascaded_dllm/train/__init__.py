"""Training one stage: objective, optimizer, moving average, checkpoints and the loop that yields its steps."""
