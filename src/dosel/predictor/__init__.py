"""A model turned into the fastest thing that gives the same answers."""

from dosel.predictor.cache import Cached, ModelCache
from dosel.predictor.predictor import FORM, FORM_BECAUSE, Form, Prediction, Predictor, Scores
from dosel.predictor.stored import StoredForm

__all__ = [
    "FORM",
    "FORM_BECAUSE",
    "Cached",
    "Form",
    "ModelCache",
    "Prediction",
    "Predictor",
    "Scores",
    "StoredForm",
]
