from transformers import TrainerCallback


class SetEpoch(TrainerCallback):
    """Tell the training set which epoch its augmentation is drawn for, before the loader starts to read."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int(state.epoch))
