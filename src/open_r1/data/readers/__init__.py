"""Readers of the forms that questions come in: saved sets, JSON, Parquet, folders of these, sets on the hub."""
