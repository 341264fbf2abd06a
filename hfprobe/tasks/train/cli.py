"""Train a model and push its best epoch to the local hub folder.

    accelerate launch --quiet --config_file accelerate_config.yaml -m hfprobe train --model cnn
    hfprobe train --model cnn --recipe reference --epochs 5
    hfprobe train --model cnn --seeds 5        # mean and deviation over five seeds
    hfprobe train --model cnn --max_train_samples 1000 --epochs 2      # a quick trial that takes seconds
    hfprobe train --model cnn --resume         # continue after an interruption, with the settings of the run
    hfprobe train --config runs/cnn-fast-seed42/config.yaml --output_dir runs/again     # repeat a run
    hfprobe train --model cnn --push_to_hub    # also upload the model to huggingface.co (hf auth login first)

All flags of transformers' TrainingArguments work in addition to hfprobe's own; `--help` lists both. `--config` reads
settings from a YAML file, one per line and named like the flags (`epochs: 5`); a flag that you pass wins over it. The
results table of the README shows the accuracy and the time to expect of each recipe.
"""

import shlex

from hfprobe.cli.run_flags import parse_runs
from hfprobe.settings.names import name_model
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.process import command
from hfprobe.training.seeds import FinishedSeeds, train_seeds
from hfprobe.training.start import FinishedRun, run_training

REFIT = "The model was solved on train + validation afterwards; these figures are of the head before that.\n"


def main() -> None:
    runs = parse_runs()
    quiet_libraries(bars=not runs[0].training.disable_tqdm)
    if len(runs) == 1:
        run = run_training(runs[0])
        if run is not None:
            print_run(runs[0], run)
    else:
        seeds = train_seeds(runs, announce=print_run)
        if seeds is not None:
            print_seeds(seeds, dataset=runs[0].data.dataset)


def print_run(config: RunConfig, run: FinishedRun | None) -> None:
    from hfprobe.statistics.imbalance import summarize_scores

    arguments = config.training
    if run is None:
        print(f"Seed {arguments.seed}: finished before, see {arguments.output_dir}.")
        return
    result, epochs = run.result, run.result.epochs
    done = "solved" if epochs is None else f"{epochs:g} epoch{'s' * (epochs != 1)}, best {result.best_epoch:g},"
    scores = "\n".join(
        summarize_scores(
            result.metrics,
            images_per_class=result.images_per_class,
            baseline=result.baseline,
            start="validation ",
        )
    )
    report = name_model(arguments.model, dataset=config.data.dataset)
    hub_flag = "" if arguments.hub_dir == "hub" else f" --hub_dir {shlex.quote(arguments.hub_dir)}"
    print(
        f"\nDone: {done} in {result.seconds:.0f} s.\n"
        f"{scores}\n{REFIT * result.refit}"
        f"Model:   {run.revision.path}\n"
        f"Run:     {run.output_dir} (curves: tensorboard --logdir {shlex.quote(str(run.output_dir))})\n"
        f"Report:  {command('eval')} --model {run.revision.name}{hub_flag} --report_dir reports/{report}"
    )
    if run.uploaded is not None:
        print(f"On the hub: {run.uploaded}")


def print_seeds(seeds: FinishedSeeds, *, dataset: str) -> None:
    from hfprobe.statistics.imbalance import METRIC_NAMES

    report = f"reports/{name_model('seeds', dataset=dataset)}"
    found = [(METRIC_NAMES[name], seeds.summary[f"validation_{name}"]) for name in seeds.summary["leading"]]
    scores = ", ".join(f"{name} {values['mean']:.2%} +/- {values['std']:.2%}" for name, values in found)
    print(
        f"\nValidation {scores} (n = {seeds.summary['n']} seeds). "
        f"All values: {seeds.path}\n"
        f"On test: {command('eval')} --seeds {shlex.quote(str(seeds.path))} --report_dir {report}"
    )
