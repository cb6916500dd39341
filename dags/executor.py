"""Airflow's LocalExecutor with the libraries of the tasks in memory."""

import gc
from importlib import import_module

from airflow.executors.local_executor import LocalExecutor

LIBRARIES = (
    # First: at its import it searches every module that is loaded.
    "skops.io",
    "lightgbm",
    "matplotlib.figure",
    "mlflow.sklearn",
    "onnxruntime",
    "optuna",
    "pyarrow.parquet",
    "skl2onnx",
    "sklearn.ensemble",
    "sklearn.model_selection",
    "xgboost",
)
"""What most tasks import. dosel itself is not here, so that a task runs the code and the use cases as they are now."""


class PreloadedExecutor(LocalExecutor):
    """Imports the libraries before it forks its workers: each task is a fork of a worker, and has them at once.

    Otherwise the imports take longer than most tasks.
    """

    def start(self) -> None:
        for library in LIBRARIES:
            import_module(library)
        # Tasks share the libraries' memory with the executor, and their garbage collections leave it alone.
        gc.collect()
        gc.freeze()
        super().start()
