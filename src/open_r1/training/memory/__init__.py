"""What a run needs of a GPU's memory: planned before anything loads, and kept small where it would not fit."""
