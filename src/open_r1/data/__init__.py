"""Rows of questions and their images: read, checked and loaded. Never imports torch."""
