"""Tiers of data: one contract of tables, whatever they are read from."""
