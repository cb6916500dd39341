"""The one form of a row and the one judge of it, for training, ingest and serving."""
