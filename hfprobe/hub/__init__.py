"""Where models live: the local hub folder, and the Hugging Face hub over the network."""
