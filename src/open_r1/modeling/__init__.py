"""Tensors and model adaptations of the shared prefix: prompt batches, packed rows, attention, sharding."""
