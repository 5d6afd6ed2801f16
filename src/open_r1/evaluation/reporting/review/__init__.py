"""Sections that answer what a reviewer asks of accuracies, each made where its runs are among the result files."""
