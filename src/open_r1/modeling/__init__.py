"""What the shared prefix needs of a model: prompts, packed rows, attention, trainable parts."""
