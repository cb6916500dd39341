"""The loaded models, the thread that follows Production, and the prediction log."""
