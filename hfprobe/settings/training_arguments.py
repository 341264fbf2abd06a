"""What hfprobe does with each setting of transformers' TrainingArguments: it checks, refuses or passes it on.

A setting that a newer transformers adds is passed on, and a resumed run must have the same value. A test fails until it
has a row here.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from hfprobe.settings.optim_args import WITHOUT_MOMENTS, settings_of
from hfprobe.system.ranges import BATCH, SEED, SHARE, STEPS, WORKERS, Range
from hfprobe.system.setting import GRADIENT_TRAINING, Case, Setting

# Reasons why a resumed run may have another value.
LOADING = "it changes how images are loaded, not which"
LOGGING = "it changes what is logged, not the training"
PLACE = "it says where results go"
SELECTION = "it says which runs are trained, not how"
MEMORY = "it changes the memory in use"


def _gradient(**row: Any) -> Setting:
    """The row of a setting of training by gradient steps."""
    return Setting(group=GRADIENT_TRAINING, **row)


def _steps_of(event: str, **row: Any) -> Setting:
    strategy = f"{event}_strategy"
    case = Case(f"--{strategy} is {{{strategy}}}", lambda a: getattr(a, strategy) != "steps")
    return _gradient(range=STEPS, ignored=(case,), **row)


def _optim(arguments: Any) -> str:
    return getattr(arguments.optim, "value", arguments.optim)


NO_EVALUATION = Case("no evaluation is made with --eval_strategy no", lambda a: a.eval_strategy == "no")
NOT_ADAM = Case(
    "the chosen optimizer is not an Adam",
    lambda a: a.optimizer == "sgd" or (a.optimizer == "optim" and _optim(a).startswith(WITHOUT_MOMENTS)),
)
OTHER_OPTIMIZER = Case("--optimizer {optimizer} takes the place of --optim", lambda a: a.optimizer != "optim")
NO_UPLOAD = Case("it belongs to --push_to_hub", lambda a: not a.push_to_hub)
ONE_UPLOAD = Case("hfprobe uploads once, at the end, what it pushed to the local hub folder", lambda a: a.push_to_hub)
ALWAYS = Case("hfprobe always trains and validates", lambda a: True)
START_METHODS = multiprocessing.get_all_start_methods()

# Values outside a range, and values that contradict others (`hfprobe.settings.contradictions`), are errors.
CHECKED = {
    "output_dir": Setting(may_differ=PLACE, repeat="never"),
    "num_train_epochs": _gradient(
        short="epochs",
        range=Range(0, 10**6, without=(0,)),
        ignored=(Case("--max_steps ends the run", lambda a: a.max_steps > 0),),
        may_differ="it may rise; the log then says what becomes of the learning rate",
        on_card=True,
    ),
    "max_steps": _gradient(range=Range(-1, 10**9, without=(0,), reason="-1: as --epochs says; not 0"), on_card=True),
    "per_device_train_batch_size": _gradient(short="batch_size", range=BATCH, on_card=True),
    "per_device_eval_batch_size": Setting(range=BATCH, default=500),
    "gradient_accumulation_steps": _gradient(range=BATCH, on_card=True),
    "lr_scheduler_type": _gradient(on_card=True),
    "lr_scheduler_kwargs": _gradient(
        ignored=(
            Case(
                "--lr_scheduler_type {lr_scheduler_type} has none", lambda a: a.lr_scheduler_type.startswith("constant")
            ),
        ),
        on_card=True,
    ),
    "warmup_steps": _gradient(
        range=Range(0, 10**9),
        ignored=(
            Case(
                "--lr_scheduler_type {lr_scheduler_type} has no warm-up",
                lambda a: a.lr_scheduler_type in ("constant", "reduce_lr_on_plateau", "greedy"),
            ),
        ),
        on_card=True,
    ),
    "warmup_ratio": _gradient(range=Range(0, 1)),  # of older versions of transformers, which make it warmup_steps
    "optim": _gradient(ignored=(OTHER_OPTIMIZER,), on_card=True),
    "optim_args": _gradient(
        ignored=(OTHER_OPTIMIZER, Case("--optim {optim} does not read it", lambda a: not settings_of(_optim(a)))),
        on_card=True,
    ),
    "optim_target_modules": _gradient(
        ignored=(
            OTHER_OPTIMIZER,
            Case("--optim {optim} does not read it", lambda a: not _optim(a).startswith(("galore", "apollo"))),
        )
    ),
    "weight_decay": _gradient(range=Range(0, 1000), on_card=True),
    "adam_beta1": _gradient(range=SHARE, ignored=(NOT_ADAM,)),
    "adam_beta2": _gradient(range=SHARE, ignored=(NOT_ADAM,)),
    "adam_epsilon": _gradient(range=Range(0, 1), ignored=(NOT_ADAM,)),
    "max_grad_norm": _gradient(range=Range(0, 10**6, reason="0: nothing is clipped"), default=0.0),
    "label_smoothing_factor": _gradient(range=SHARE, on_card=True),
    "bf16": Setting(may_differ="the precision that it sets is compared"),
    "fp16": Setting(may_differ="the precision that it sets is compared"),
    "torch_compile_backend": Setting(),  # with its mode: from accelerate's environment where no flag sets them
    "torch_compile_mode": Setting(),
    "torch_empty_cache_steps": _gradient(range=Range(1, 10**9), may_differ=MEMORY),
    "logging_strategy": _gradient(default="epoch", may_differ=LOGGING),
    "logging_steps": _steps_of("logging", may_differ=LOGGING),
    "eval_strategy": _gradient(default="epoch"),
    "eval_steps": _steps_of("eval"),
    "eval_delay": _gradient(range=Range(0, 10**9), ignored=(NO_EVALUATION,)),
    "eval_accumulation_steps": Setting(range=BATCH, may_differ=MEMORY),
    "save_strategy": _gradient(default="epoch"),
    "save_steps": _steps_of("save"),
    "save_total_limit": _gradient(
        range=Range(1, 10**6),
        default=2,
        ignored=(Case("nothing is saved with --save_strategy no", lambda a: a.save_strategy == "no"),),
        may_differ="the best and the newest checkpoint are always kept",
    ),
    "load_best_model_at_end": _gradient(default=True),
    # Macro-F1 if the classes are imbalanced, see `hfprobe.training.assembly.choose_metric`.
    "metric_for_best_model": _gradient(default="accuracy"),
    "greater_is_better": _gradient(repeat="passed"),
    "report_to": Setting(default="tensorboard", may_differ=LOGGING),
    "accelerator_config": Setting(repeat="passed"),
    "seed": Setting(range=SEED),
    "data_seed": _gradient(range=SEED),
    "full_determinism": Setting(short="deterministic"),
    "use_cpu": Setting(may_differ="the device is compared like the rest of the hardware, with a warning"),
    "dataloader_num_workers": Setting(range=WORKERS, may_differ=LOADING),
    "dataloader_prefetch_factor": Setting(range=Range(1, 1000), may_differ=LOADING),
    "ddp_bucket_cap_mb": Setting(range=Range(1, 10**5)),
    "ddp_timeout": Setting(
        range=Range(1, 10**7, reason="seconds"), may_differ="it changes how long processes wait for each other"
    ),
    "push_to_hub": Setting(may_differ=PLACE),
    "hub_token": Setting(may_differ=PLACE, repeat="never"),
}

UNMEASURED = "no predictions to measure"
ROUNDED = "rounds the weights after training, so that the pushed ones are not those that were evaluated"
LANGUAGE_MODELS = Case("is for language models")
# Values that hfprobe cannot support, each with the reason.
REFUSED = {
    "remove_unused_columns": Setting(
        default=False, refused=Case("finds columns by their names, and hfprobe's batches have none to drop")
    ),
    "resume_from_checkpoint": Setting(
        refused=Case("is not read: --resume continues from the newest checkpoint in --output_dir"), may_differ=SELECTION
    ),
    "save_only_model": _gradient(
        refused=Case("leaves out what --resume needs, so that a stopped run would begin again")
    ),
    "restore_callback_states_from_checkpoint": Setting(refused=Case("is not needed: --resume restores everything")),
    "enable_jit_checkpoint": Setting(refused=Case("is not needed: hfprobe saves a checkpoint when a signal stops it")),
    "neftune_noise_alpha": Setting(refused=LANGUAGE_MODELS),
    "use_liger_kernel": Setting(refused=LANGUAGE_MODELS),
    "activation_checkpointing": _gradient(refused=Case("is not supported by hfprobe's models")),
    "gradient_checkpointing": _gradient(refused=Case("is not supported by hfprobe's models")),
    "train_sampling_strategy": _gradient(
        refused=Case(
            "applies only to text: images have no length",
            lambda a: a.train_sampling_strategy in ("group_by_length", "batch_rebalance"),
        )
    ),
    "dataloader_persistent_workers": Setting(
        refused=Case(
            "needs --dataloader_num_workers of 1 or more",
            lambda a: a.dataloader_persistent_workers and a.dataloader_num_workers == 0,
        ),
        may_differ=LOADING,
    ),
    "dataloader_multiprocessing_context": Setting(
        refused=Case(
            f"is {{dataloader_multiprocessing_context}}; allowed here, with --dataloader_num_workers of 1 or more: "
            f"{', '.join(START_METHODS)}",
            lambda a: (
                a.dataloader_multiprocessing_context is not None
                and not (a.dataloader_num_workers and a.dataloader_multiprocessing_context in START_METHODS)
            ),
        ),
        may_differ=LOADING,
    ),
    "dataloader_in_order": Setting(
        refused=Case(
            "false trains on batches in the order in which the workers finish them, which no other run repeats",
            lambda a: not a.dataloader_in_order,
        )
    ),
    "dataloader_drop_last": Setting(refused=Case("leaves images out of evaluations too")),
    "label_names": Setting(
        refused=Case(
            "names columns, and hfprobe's batches have none but labels",
            lambda a: a.label_names not in (None, ["labels"]),
        )
    ),
    "batch_eval_metrics": Setting(refused=Case("measures in parts; hfprobe measures all predictions at once")),
    "prediction_loss_only": Setting(refused=Case(f"leaves {UNMEASURED}")),
    "eval_do_concat_batches": Setting(
        refused=Case(f"false leaves {UNMEASURED}", lambda a: not a.eval_do_concat_batches)
    ),
    "bf16_full_eval": Setting(refused=Case(ROUNDED)),
    "fp16_full_eval": Setting(refused=Case(ROUNDED)),
}

# transformers checks these, and they mean for hfprobe what its documentation says.
PASSED = {
    **dict.fromkeys(("average_tokens_across_devices", "tf32", "torch_compile", "liger_kernel_config"), Setting()),
    **dict.fromkeys(("use_cache", "eval_use_gather_object", "include_for_metrics", "save_on_each_node"), Setting()),
    **dict.fromkeys(("parallelism_config", "length_column_name", "deepspeed", "fsdp", "ddp_backend"), Setting()),
    **dict.fromkeys(("ddp_broadcast_buffers", "ddp_static_graph"), Setting()),
    **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), _gradient()),
    **dict.fromkeys(("auto_find_batch_size", "eval_on_start", "ignore_data_skip"), _gradient()),
    "ddp_find_unused_parameters": Setting(default=False),
    "fsdp_config": Setting(repeat="passed"),  # older versions of transformers set it
    "dataloader_pin_memory": Setting(default=False, may_differ=LOADING),
    "logging_first_step": _gradient(may_differ=LOGGING),
    "logging_nan_inf_filter": _gradient(default=False, may_differ=LOGGING),
    "disable_tqdm": Setting(default=False, may_differ=LOGGING),
    "run_name": Setting(
        ignored=(Case("only services other than TensorBoard show it", lambda a: set(a.report_to) <= {"tensorboard"}),),
        may_differ=LOGGING,
    ),
    **dict.fromkeys(("log_level", "log_level_replica", "log_on_each_node", "project"), Setting(may_differ=LOGGING)),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), Setting(may_differ=LOGGING)),
    **dict.fromkeys(("include_num_input_tokens_seen", "skip_memory_metrics", "debug"), Setting(may_differ=LOGGING)),
    "logging_dir": Setting(may_differ=LOGGING),  # of older versions of transformers
    "local_rank": Setting(may_differ=SELECTION),
    **dict.fromkeys(("do_train", "do_predict"), Setting(ignored=(ALWAYS,), may_differ=SELECTION)),
    "do_eval": Setting(ignored=(ALWAYS,), may_differ=SELECTION, repeat="passed"),
    **dict.fromkeys(
        ("hub_model_id", "hub_private_repo", "hub_revision"), Setting(ignored=(NO_UPLOAD,), may_differ=PLACE)
    ),
    "hub_always_push": Setting(ignored=(NO_UPLOAD, ONE_UPLOAD), may_differ=PLACE),
    "hub_strategy": Setting(ignored=(NO_UPLOAD, ONE_UPLOAD), may_differ=PLACE, repeat="passed"),
}

ROWS = CHECKED | REFUSED | PASSED
