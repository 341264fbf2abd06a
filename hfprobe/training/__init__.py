"""Training runs. `run_training` is the way through: folder, images, assembly of the Trainer, training, publication.

- The run: start (run_training), seeds, assembly, fit, publish, record (run.json).
- The Trainer: trainer, private_api, checkpoints, optimizers, callbacks.
- Checks before a run: resume, run_files, preflight, precision.
"""
