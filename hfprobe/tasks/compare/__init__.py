"""Compare two or more models on the same images and write one page with the results."""
