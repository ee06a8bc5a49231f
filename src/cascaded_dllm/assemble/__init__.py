"""The one place where a configuration becomes objects: a training run, a preprocessing job, a judge, a measurement.

The modules form layers: `run` uses the others, and modules that do not read weights do not import torch.
"""
