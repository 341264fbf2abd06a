"""Where models are stored: the local hub folder, and the Hugging Face hub over the network."""
