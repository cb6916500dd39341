"""A model version as a folder of files, and the predictor that answers with it."""
