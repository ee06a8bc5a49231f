"""The mathematics of discrete diffusion: schedules, processes, score entropy, bounds and draws; no networks."""
