"""Attacks on a running API, one after the other, and what another client notices meanwhile."""
