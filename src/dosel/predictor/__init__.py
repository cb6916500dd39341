"""A model turned into the fastest thing that gives the same answers."""

from dosel.predictor.predictor import Form, Prediction, Predictor, Scores

__all__ = ["Form", "Prediction", "Predictor", "Scores"]
