"""Which images of data sets are the same or nearly the same: hashes of images, hash files, and their comparison."""
