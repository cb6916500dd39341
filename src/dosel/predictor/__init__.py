"""A model turned into the fastest thing that gives the same answers."""

from dosel.predictor.cache import Cached, ModelCache
from dosel.predictor.predictor import Form, Prediction, Predictor, Scores

__all__ = ["Cached", "Form", "ModelCache", "Prediction", "Predictor", "Scores"]
