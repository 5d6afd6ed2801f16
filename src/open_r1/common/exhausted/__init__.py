"""Recognizes what a machine has no more of, disk or memory, whichever library says so."""
