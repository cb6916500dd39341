"""Notices of libraries about what dosel does on purpose, by library and text; all other warnings stay."""

import logging
import warnings


def leave_out_notices() -> None:
    """Keep these notices out of this process's output, such as the logs of Airflow's tasks."""
    # A line for each call.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # That an experiment is created: to stderr, which Airflow shows as an error.
    logging.getLogger("mlflow.tracking.fluent").setLevel(logging.WARNING)
    # A signature has integers where a client sends them.
    warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer", UserWarning, r"mlflow\.types\.utils")
    # skl2onnx reads both attributes of a support vector machine.
    warnings.filterwarnings("ignore", "Attribute `prob[AB]_` was deprecated", FutureWarning, r"sklearn\.")
