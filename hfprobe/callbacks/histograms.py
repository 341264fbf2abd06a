from transformers import TrainerCallback


class Histograms(TrainerCallback):
    """Histograms of weights and gradients in TensorBoard, at the last step of the first and of every `every`-th epoch.

    Args:
        tensorboard: the Trainer's TensorBoardCallback, whose writer is shared.
        every: epochs from one to the next.
    """

    def __init__(self, tensorboard, every: int):
        self.tensorboard = tensorboard
        self.every = every

    def on_pre_optimizer_step(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        # The only place where gradients are complete and not yet cleared.
        writer = self.tensorboard.tb_writer
        steps_per_epoch = max(1, len(train_dataloader) // args.gradient_accumulation_steps)
        epoch, step = divmod(state.global_step + 1, steps_per_epoch)
        if writer is None or step or (epoch != 1 and epoch % self.every):
            return
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            name = name.removeprefix("module.").replace(".", "/")
            for kind, values in (("weights", parameter.detach()), ("gradients", parameter.grad)):
                if values.isfinite().all():  # others have no histogram, and end the run at its next log entry
                    writer.add_histogram(f"{kind}/{name}", values.float().cpu(), epoch)
