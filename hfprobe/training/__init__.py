"""How a run goes: Trainer, checkpoints, run folder, callbacks."""
