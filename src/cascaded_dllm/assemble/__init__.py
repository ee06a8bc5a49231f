"""The one place where a configuration becomes objects: a training run, a preprocessing job, a judge, a measurement.

Its modules stand in layers of their own: `run` is made of the others, and what reads no weights imports no torch.
"""
