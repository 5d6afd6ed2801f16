"""Everything between a checkpoint and a table of accuracies that can be believed."""
