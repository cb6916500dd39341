"""HTTP itself: middleware, problem documents, metrics, logs and the documentation page."""
