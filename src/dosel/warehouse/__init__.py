"""Batches: raw rows, clean rows, quarantine and the batch ledger; and the prediction log."""
