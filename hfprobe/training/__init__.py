"""Training runs. `run_training` is the way through: folder, images, assembly of the Trainer, run, publish.

- The run: run_training, seeds, assembly, run, publish, record (run.json).
- The Trainer: trainer, private_api, checkpoints, optimizers, callbacks.
- Checks before a run: run_folder, output_folder, preflight.
- Other experiments: sanity (overfit one batch), label_efficiency.
"""
