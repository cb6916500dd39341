"""Attacks on a running API, one after the other, and their effect on another client."""
