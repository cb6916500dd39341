"""Fitted classifiers as ONNX models."""
