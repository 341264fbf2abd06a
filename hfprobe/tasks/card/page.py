"""The folder of a model for the Hugging Face hub. Does not import torch.

A revision in the hub folder is named by the checksums of its files, among them its card, which therefore cannot get the
results of a later evaluation. So they are added in a copy. The parts of the pushed card on data and training remain.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
from huggingface_hub import EvalResult as IndexEntry
from huggingface_hub import ModelCard
from jinja2 import FileSystemLoader

from hfprobe.data.arguments import IN_MEMORY
from hfprobe.hub.model_card import render_header
from hfprobe.hub.revision import published_content
from hfprobe.statistics.imbalance import METRIC_NAMES, explain_baseline
from hfprobe.statistics.intervals import Metric
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import explain_full_disk, staging_folder
from hfprobe.system.markdown import make_markdown_environment, printable
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.system.process import command
from hfprobe.system.records import read_record
from hfprobe.tasks.evaluate.result import METRICS_FILE, EvalResult, Saved
from hfprobe.tasks.export.result import CLASSIFIER, Export, check_export

CARD = "README.md"
FIGURE = "confusion_matrix.png"
STAGING = ".card-"
# The names of the metrics on the hub: https://huggingface.co/metrics.
HUB_METRICS: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "f1", "balanced_accuracy": "balanced_accuracy"}
# Where the pushed card is divided: validation | data and training | use.
DATA, USE = "\n## Data\n", "\n## Use\n"
NO_RESULTS = "\nFor results on the test images, run "  # the last paragraph of the first part
DIGITS = 1e-6  # of a score; a library may round the last digits differently


def write_folder(folder: Path, *, model: Path, result: EvalResult, report: Path, repository: str | None) -> None:
    """Write the files of a revision, its export if it has one, the card and the confusion matrix into a new folder.

    Args:
        folder: must not exist; it appears as a whole.
        model: snapshot of the hub folder.
        result, report: an evaluation of this revision on test, and its folder.
        repository: hub id that the snippets of the card name; None: they run in the folder.

    Raises:
        InputError: the evaluation is of another revision or split, or was edited; the export is stale or damaged.
        MachineError: the disk is full; nothing is left behind.
    """
    check_report(result, report=report, model=model)
    export = check_export(model) if (model / EXPORT_FOLDER).is_dir() else None
    text = write_card(
        (model / CARD).read_text(encoding="utf-8"), result=result, model=model, export=export, repository=repository
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        explain_full_disk("The card", folder, kept="Nothing was left behind."),
        staging_folder(folder.parent, prefix=STAGING) as staging,
    ):
        files = staging / "files"
        for file in sorted(file for file in model.rglob("*") if file.is_file()):
            target = files / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = published_content(file)
            target.write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, target)
        shutil.copyfile(report / FIGURE, files / FIGURE)
        (files / CARD).write_text(text, encoding="utf-8")
        os.rename(files, folder)


def check_report(result: EvalResult, *, report: Path, model: Path) -> None:
    """Check that an evaluation is of this revision on its test images, and that its files belong together.

    Raises:
        InputError: it is not; the message says what was found.
    """
    place, told = shorten(report), result.provenance
    evaluate = f"{command('eval')} --model {shlex.quote(_at(model))}"
    again = f"{evaluate} --report_dir {shlex.quote(place)}"
    if told.model_revision != model.name:
        raise InputError(
            f"The report in '{place}' is of {told.model}, revision {told.model_revision[:12]}, and the model is "
            f"revision {model.name[:12]}. Evaluate this one: {again}"
        )
    if told.split != "test":
        raise InputError(f"The report in '{place}' is of the split '{told.split}'; allowed: test. Evaluate it: {again}")
    if told.runtime != "torch":
        raise InputError(
            f"The report in '{place}' is of the exported file in the runtime '{told.runtime}'; allowed: torch, whose "
            f"figures the card shows beside those of the export. Evaluate the model: {evaluate} --report_dir <folder>"
        )
    saved = read_record(Saved, report / METRICS_FILE, what="evaluation", remedy=f"Evaluate the model: {again}")
    for name in METRIC_NAMES:
        if not math.isclose(saved[name], result.metrics[name], abs_tol=DIGITS):
            raise InputError(
                f"The report in '{place}' was edited: its {METRIC_NAMES[name]} is {saved[name]:.4f}, and that of its "
                f"predictions {result.metrics[name]:.4f}. Evaluate the model again: {again}"
            )
    try:
        with PIL.Image.open(report / FIGURE) as image:
            image.verify()
    except Exception as error:  # Pillow raises many types of errors
        raise InputError(
            f"The report in '{place}' has no intact {FIGURE}. Write it again: {command('eval')} --report_only "
            f"--report_dir {shlex.quote(place)}"
        ) from error


def write_card(
    pushed: str, *, result: EvalResult, model: Path, export: Export | None, repository: str | None = None
) -> str:
    """The text of the card.

    Args:
        pushed: the card of the revision, with its results on validation.
        export: of the revision; None: it has none.
    """
    data = ModelCard(pushed).data
    data.eval_results = [*(data.eval_results or []), *index_entries(result)]
    data.metrics = [HUB_METRICS[name] for name in METRIC_NAMES]
    body = pushed.split("---\n", 2)[2]
    first, _, rest = body.partition(DATA)
    not_better = explain_baseline(result.metrics, result.metrics.baseline, result.leading)
    environment = make_markdown_environment(FileSystemLoader(Path(__file__).parent / "templates"))
    results, use = (
        environment.get_template(name).render(
            result=result,
            metrics=result.metrics,
            names=METRIC_NAMES,
            sentences=[*filter(None, (not_better, result.provenance.split_changes, result.leak_sentence))],
            figure=FIGURE,
            is_local=os.path.isabs(result.provenance.dataset),
            commands=repeat_commands(result, repository=repository),
            repository=repository,
            export=export,
            classifier=f"{EXPORT_FOLDER}/{CLASSIFIER}",
        )
        for name in ("results.md.j2", "use.md.j2")
    )
    first, rest = first.partition(NO_RESULTS)[0].rstrip(), rest.partition(USE)[0]
    return f"{render_header(data)}{first}\n\n{results}{DATA}{rest}\n{use}"


def index_entries(result: EvalResult) -> list[IndexEntry]:
    """The metrics in the hub's form, which has no field for intervals: `name` shows them, `args` has all digits."""
    dataset, entries = dataset_name(result.provenance.dataset), []
    for name, words in METRIC_NAMES.items():
        low, high = interval = result.metrics.intervals[name]
        entries.append(
            IndexEntry(
                task_type="image-classification",
                task_name="Image classification",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split="test",
                metric_type=HUB_METRICS[name],
                metric_value=result.metrics[name],
                metric_name=f"{words} (95 % interval {low:.4f} to {high:.4f}, n = {result.metrics.n:,})",
                metric_args={"interval": list(interval), "confidence": 0.95, "n": result.metrics.n},
            )
        )
    return entries


def dataset_name(dataset: str) -> str:
    """A dataset without the folders above it, which are those of the user."""
    return os.path.basename(dataset) if os.path.isabs(dataset) else dataset


def repeat_commands(result: EvalResult, *, repository: str | None) -> Sequence[str]:
    """The commands that evaluate the model again; empty for images that were in memory."""
    told = result.provenance
    if told.dataset.startswith(IN_MEMORY):
        return []
    evaluate = ["hfprobe", "eval", "--model", "model" if repository else "."]
    if os.path.isabs(told.dataset) or told.dataset != told.run.get("dataset"):
        evaluate += ["--dataset", dataset_name(told.dataset)]
    limit = told.max_eval_samples
    evaluate += [] if limit is None else ["--max_eval_samples", str(limit)]
    evaluate += ["--temperature"] * (told.temperature is not None)
    evaluate += ["--tta"] * (told.test_time_augmentation is not None)
    download = [f"hf download {repository} --local-dir model"] if repository else []
    return [*download, printable(shlex.join(evaluate))]


def _at(model: Path) -> str:
    """The name of a snapshot in the hub folder."""
    return f"{model.parents[1].name.rpartition('--')[2]}@{model.name[:12]}"
