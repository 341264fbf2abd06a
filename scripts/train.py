"""Train a model and push its best epoch to the local hub folder.

    accelerate launch --quiet --config_file accelerate_config.yaml scripts/train.py --model cnn
    python scripts/train.py --model cnn --recipe reference --epochs 5
    python scripts/train.py --model cnn --seeds 5        # mean and deviation over five seeds
    python scripts/train.py --model cnn --max_train_samples 1000 --epochs 2      # a quick trial that takes seconds
    python scripts/train.py --model cnn --resume         # continue after an interruption, with the settings of the run
    python scripts/train.py --model cnn --push_to_hub    # also upload the model to huggingface.co (hf auth login first)

All flags of transformers' TrainingArguments work in addition to hfprobe's own; `--help` lists both. The results table
of the README shows the accuracy and the time to expect of each recipe.
"""

import shlex
from pathlib import Path

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.config.run import RunConfig, parse_runs
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.process import is_main_process, script
from hfprobe.training.run_folder import check_output_dir, claimed, holds_run, is_finished


def main() -> None:
    runs = parse_runs()
    if len(runs) == 1:
        train_one(runs[0])
    else:
        train_seeds(runs)


def train_one(config: RunConfig) -> None:
    """Train one model, push it to the local hub folder, and print where the results are."""
    check_output_dir(config)  # before the slow imports

    from hfprobe.hub.client import check_upload, upload_revision

    uploads = config.training.push_to_hub and is_main_process()
    repository = check_upload(config.training) if uploads else None

    from transformers import enable_full_determinism, set_seed

    from hfprobe.data.splits import load_images
    from hfprobe.models import build_model
    from hfprobe.training.run import build_trainer, push_best, train

    quiet_libraries(bars=not config.training.disable_tqdm)
    use_every_core()
    with config.training.main_process_first(desc="decoding"):
        images = load_images(config.data, seed=config.split_seed)
        (enable_full_determinism if config.training.full_determinism else set_seed)(config.training.seed)
        model, processor = build_model(config.training.model, labels=images.class_names, options=config.model)
        splits = images.decode("train", "validation", processor=processor)
    with claimed(config.training) as output_dir:
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
        result = train(trainer, config=config, splits=splits)
    if not is_main_process():
        return
    revision = push_best(trainer, config=config, splits=splits, result=result, repository=repository)
    epochs = result.epochs
    done = "solved" if epochs is None else f"{epochs:g} epoch{'s' * (epochs != 1)}, best {result.best_epoch:g},"
    hub_flag = "" if config.training.hub_dir == "hub" else f" --hub_dir {shlex.quote(config.training.hub_dir)}"
    print(
        f"\nDone: {done} in {result.seconds:.0f} s.\n"
        f"Validation accuracy {result.metrics['accuracy']:.2%}, macro-F1 {result.metrics['macro_f1']:.2%} "
        f"(n = {result.n_validation:,}).\n"
        f"Model:   {revision.path}\n"
        f"Run:     {output_dir} (curves: tensorboard --logdir {shlex.quote(str(output_dir))})\n"
        f"Report:  python {script('eval')} --model {revision.name}{hub_flag} "
        f"--report_dir reports/{config.training.model}"
    )
    if repository is not None:
        print(f"On the hub: {upload_revision(revision, repository=repository, arguments=config.training)}")


def train_seeds(runs: list[RunConfig]) -> None:
    """Train the seeds that are not finished yet, then write the mean and deviation over all seeds."""
    from hfprobe.system.files import write_json
    from hfprobe.training.run import summarize_seeds

    finished = []
    for config in runs:  # checks every folder before the first training
        arguments = config.training
        arguments.resume = arguments.resume and holds_run(arguments.output_dir)
        if not arguments.overwrite and is_finished(config):
            finished.append(config)
        else:
            check_output_dir(config)
    for config in runs:
        if config in finished:
            print(f"Seed {config.training.seed}: finished before, see {config.training.output_dir}.")
        else:
            train_one(config)
    if not is_main_process():
        return
    summary = summarize_seeds(runs)
    first = runs[0].training
    path = Path(first.output_dir).parent / f"{first.model}-{first.recipe}-seeds.json"
    write_json(path, summary)
    accuracy = summary["validation_accuracy"]
    print(
        f"\nValidation accuracy {accuracy['mean']:.2%} +/- {accuracy['std']:.2%} (n = {summary['n']} seeds). "
        f"All values: {path}\n"
        f"On test: python {script('eval')} --seeds {shlex.quote(str(path))} --report_dir reports/seeds"
    )


if __name__ == "__main__":
    run_command(main)
