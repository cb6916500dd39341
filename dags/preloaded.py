"""Airflow's command with the libraries of the tasks in memory: `python -m dags.preloaded scheduler`.

The scheduler with LocalExecutor and Celery's worker fork a process for each task, which then has the libraries at once.
Otherwise importing them takes longer than most tasks.
"""

import gc
from importlib import import_module

LIBRARIES = (
    # First, and before Airflow: while skops is imported, it asks every loaded module for each function of SciPy.
    # Airflow's modules would answer with a thousand warnings and with imports of their own, which take seconds.
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


def main() -> None:
    """Import the libraries, then run Airflow's command with this process's arguments."""
    for library in LIBRARIES:
        import_module(library)
    # Tasks share the libraries' memory with this process, and their garbage collections leave it alone.
    gc.collect()
    gc.freeze()
    from airflow.__main__ import main as airflow

    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
