"""dosel: from an outside data API to a model in Production that answers, and the account of how it got there.

The rooms, in the order data passes, each importing only what stands above it: `settings`, `errors`,
`usecases`, `rows`, `sources`, `warehouse`, `quality`, `training`, `predictor`, `registry`, `pipeline`,
`client`, `embedded`, `cli`.
"""

__version__ = "0.1.0"
