"""The score network: a diffusion transformer with the weights and names of SEDD."""
