"""From clean rows to a tracked run with one model: split, search, evaluate, and tell MLflow all of it.

`dosel.training.train` is imported from its module, so that looking at this package costs nothing.
"""
