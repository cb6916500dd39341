"""The connection to a Dask cluster, whose workers score the candidates of searches.

Only this room and what calls it import `distributed`, and only if `DOSEL_CLUSTER` is set.
"""
