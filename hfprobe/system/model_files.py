"""The files of a model folder, as transformers names them; its own constants are slow to import."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "preprocessor_config.json"
