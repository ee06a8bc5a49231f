"""Cascaded discrete diffusion language models: texts written in stages, each stage a diffusion model."""

__version__ = "0.1.0"
