"""The page's parts. All they know of a use case is what `GET /use-cases` says."""
