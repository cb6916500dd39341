"""A model registry platform: from an outside source of rows to a model in Production, with a ledger of every change.

Each package is a room with one task; docs/how-it-works.md lists the rooms. The import contracts in pyproject.toml say
which room may import which.
"""

__version__ = "0.1.0"
