"""The commands that repeat a decision, at once and step by step."""

from __future__ import annotations

import shlex

from hfprobe.data.arguments import DEFAULT_DATASET, IN_MEMORY
from hfprobe.data.splits.images import Images
from hfprobe.settings.run_config import image_settings
from hfprobe.system.process import spell_flags
from hfprobe.tasks.decide.result import COMPARISON_FOLDER, PROFILE_FOLDER, RUNS_FOLDER, Candidate, folder_of_seeds
from hfprobe.tasks.decide.wishes import AUTO, MODELS, Wishes


def list_commands(given: Images, images: Images, wishes: Wishes, trained: dict[str, Candidate]) -> list[str]:
    """The command of the decision, then those of its steps; empty for images in memory, which no command can name.

    Args:
        given: the images of the decision.
        images: those that the models saw.
    """
    data = image_settings(given)
    dataset = data.pop("dataset", DEFAULT_DATASET)
    if dataset.startswith(IN_MEMORY):
        return []
    hub = {} if wishes.hub_dir == "hub" else {"hub_dir": wishes.hub_dir}
    first = wishes.folder
    decide = data | ({} if wishes.models == MODELS else {"models": list(wishes.models)})
    decide |= {} if wishes.backbones == AUTO else {"backbones": list(wishes.backbones)}
    decide |= {"epochs": f"{wishes.epochs:g}"} if wishes.epochs is not None else {}
    decide |= {"drop_leaks": True} if wishes.drop_leaks else {}
    decide |= {"label_efficiency": True} if wishes.label_efficiency else {}
    decide |= {"unlabelled": wishes.unlabelled} if wishes.unlabelled is not None else {}
    decide |= {"seed": wishes.seed} if wishes.seed != 42 else {}
    decide |= {"seeds": wishes.seeds} if wishes.seeds > 1 else {}
    decide |= {"margin": f"{100 * wishes.margin:g}"} if wishes.margin != Wishes(first).margin else {}
    decide |= {"budget": f"{wishes.budget:g}s"} if wishes.budget is not None else {}
    where = "" if dataset == DEFAULT_DATASET else f" {shlex.quote(dataset)}"
    commands = [f"hfprobe decide{where}{spell_flags(decide | hub | {'report_dir': first})}"]
    most = images.arguments.max_eval_samples
    limit = {} if most is None else {"max_eval_samples": most}
    names = {name: f"{found.name}@{found.revision[:12]}" for name, found in trained.items()}
    for found in trained.values():
        config = first / RUNS_FOLDER / found.report / "config.yaml"
        commands.append(
            f"hfprobe train{spell_flags({'config': config, 'output_dir': f'runs/{found.report}-again'} | hub)}"
        )
    for name, found in trained.items():
        values = {"model": names[name], "report_dir": first / found.report}
        commands.append(f"hfprobe eval{spell_flags(values | limit | hub)}")
    compared = [name for name, found in trained.items() if found.seed == wishes.seed]
    if len(compared) > 1:
        profile = {"report_dir": first / PROFILE_FOLDER}
        models = " ".join(shlex.quote(names[name]) for name in compared)
        commands.append(f"hfprobe profile {models}{spell_flags(profile | hub)}")
        families = [found.family for found in trained.values()]
        folders = [
            folder_of_seeds(trained[name].family) if families.count(trained[name].family) > 1 else trained[name].report
            for name in compared
        ]
        reports = " ".join(shlex.quote(str(first / folder)) for folder in folders)
        places = {"profile": first / PROFILE_FOLDER, "report_dir": first / COMPARISON_FOLDER}
        commands.append(f"hfprobe compare {reports}{spell_flags(places)}")
    return commands
