"""Text questions: MedQA and its relatives, from the published files to prepared sets."""
