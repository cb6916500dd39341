"""Rows: their columnar form (`columns`), the validator of their values (`validation`), and readers that give both.

Data comes in as JSON (`json`), CSV (`csv`), mappings (`validation`) or text (`text`); all of it passes one validator.
"""
