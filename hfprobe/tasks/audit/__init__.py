"""Look at the images before any model is trained: duplicates, suspect labels and outliers."""
