"""Overfit one batch of 32 images. A model that cannot do this has a bug; the exit code is then 1.

    python scripts/sanity_check.py --model cnn
    python scripts/sanity_check.py --model probe --backbone_weights random

The flags of the model are accepted too. Expect an accuracy of 100 % after 10 to 20 epochs, in about ten seconds.
"""

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import CheckFailedError
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.ranges import RATE, Range

BATCH_SIZE = 32
EPOCHS = Range(1, 10_000)


def make_parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", default="cnn", help="cnn or probe; default: cnn")
    parser.add_argument("--epochs", type=number_in(EPOCHS), default=30, help="maximum number of epochs; default: 30")
    parser.add_argument(
        "--lr", type=number_in(RATE, kind=float), help="learning rate of Adam; default: depends on the model"
    )
    parser.add_argument("--dataset", help="hub id or local folder; default: CIFAR-10")
    parser.add_argument("--classes", nargs="+", help="classes to keep; default: airplane automobile bird cat dog")
    return parser


def main() -> None:
    arguments, own_flags = make_parser().parse_known_args()

    from hfprobe.cli.run_flags import parse_options
    from hfprobe.models import find_family

    family = find_family(arguments.model)
    options = parse_options(arguments.model, own_flags)

    from transformers import set_seed

    from hfprobe.data.arguments import DataArguments
    from hfprobe.data.splits import load_images
    from hfprobe.data.store import ImageBatches
    from hfprobe.training.sanity import overfit_batch

    quiet_libraries()
    set_seed(42)
    chosen = {key: value for key in ("dataset", "classes") if (value := getattr(arguments, key)) is not None}
    data = DataArguments(**chosen, max_train_samples=BATCH_SIZE, max_eval_samples=BATCH_SIZE)
    undecoded = load_images(data, seed=42)
    options = family.complete_options(options, images=undecoded)
    model, processor = family.build(labels=data.classes, options=options)
    train = undecoded.decode("train", processor=processor).part("train")
    images = ImageBatches(train, processor=processor)
    family.initialize(model, options=options, images=images)
    batch = images.__getitems__(list(range(len(images))))
    learning_rate = family.sanity_learning_rate if arguments.lr is None else arguments.lr
    accuracies = overfit_batch(model=model, batch=batch, epochs=arguments.epochs, learning_rate=learning_rate)
    for epoch, accuracy in enumerate(accuracies, start=1):
        print(f"epoch {epoch:>2}  accuracy {accuracy:7.2%}")
    if accuracies[-1] < 1:
        raise CheckFailedError(
            f"{arguments.model} did not overfit {len(train)} images: {max(accuracies):.2%} at best in "
            f"{len(accuracies)} epochs; expected: 100 %. Check its gradients, or pass a larger --epochs or --lr."
        )
    print(f"\n{arguments.model} overfitted {len(train)} images in {len(accuracies)} epochs.")


if __name__ == "__main__":
    run_command(main)
