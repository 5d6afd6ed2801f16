"""Made-up data, tiny models and faults: for demos and tests, not part of the product."""
