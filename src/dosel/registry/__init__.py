"""Register, gate, promote: the only room that calls MLflow's model registry.

`store` calls MLflow; `ledger` records every move of Production; `manifests` records what a version's files were;
`file_verification` checks files against manifests, `ledger_verification` the ledgers; `gate` decides on what `scoring`
measured; `registry` moves Production and `projection` writes MLflow's aliases and stage from the ledger; `gc` removes
runs and files that no version needs.
"""
