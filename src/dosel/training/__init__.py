"""Training: from clean rows to a finished MLflow run that compares each family's best model.

This package imports nothing by itself, so that using one of its light modules is cheap.
"""
