"""OmniMedVQA: from the published files to prepared sets."""
