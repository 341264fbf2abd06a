"""Train a model and push its best epoch to the local hub folder.

    accelerate launch --quiet --config_file accelerate_config.yaml scripts/train.py --model cnn
    python scripts/train.py --model cnn --recipe reference --epochs 5
    python scripts/train.py --model cnn --max_train_samples 1000 --epochs 2      # a look around, seconds

Any flag of transformers' TrainingArguments works beside hfprobe's own; `--help` lists both. A run that was stopped goes
on with `--resume`. What to expect of each recipe stands in the README's results table.
"""

from hfprobe.cli import is_main_process, quiet_libraries, require_writable, run_command, use_every_core
from hfprobe.config import claim_output_dir, parse_run


def main() -> None:
    config = parse_run()
    # Whatever is wrong with the flags or the folders is said before the slow imports.
    require_writable(config.training.hub_dir, flag="--hub_dir")
    output_dir = claim_output_dir(config.training)

    from transformers import set_seed

    from hfprobe.data.splits import load_splits
    from hfprobe.data.transforms import input_size
    from hfprobe.models import build_model
    from hfprobe.training import build_trainer, push_best, train

    quiet_libraries()
    use_every_core()
    set_seed(config.training.seed)
    model, processor = build_model(config.training.model, labels=config.data.classes, options=config.model)
    with config.training.main_process_first(desc="decoding"):
        splits = load_splits(config.data, seed=config.training.seed, image_size=input_size(processor))
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    result = train(trainer, config=config, splits=splits)
    if not is_main_process():
        return
    revision = push_best(trainer, config=config, splits=splits, result=result)
    hub_flag = "" if config.training.hub_dir == "hub" else f" --hub_dir {config.training.hub_dir}"
    print(
        f"\nDone: {result.epochs:g} epochs in {result.seconds:.0f} s; best epoch {result.best_epoch:g}.\n"
        f"Validation accuracy {result.metrics['accuracy']:.2%}, macro-F1 {result.metrics['macro_f1']:.2%} "
        f"(n = {result.n_validation:,}).\n"
        f"Model:   {revision.path}\n"
        f"Run:     {output_dir} (curves: tensorboard --logdir {output_dir})\n"
        f"Report:  python scripts/eval.py --model {revision.name}{hub_flag} "
        f"--report_dir reports/{config.training.model}"
    )


if __name__ == "__main__":
    run_command(main)
