"""Overfit one batch of 32 images: a model that cannot do this has a bug, and the exit code is 1.

    hfprobe sanity-check --model cnn
    hfprobe sanity-check --model probe --backbone_weights random

The flags of the model are accepted too. Expect an accuracy of 100 % after 10 to 20 epochs, in about ten seconds.
"""

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import CheckFailedError
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.process import command
from hfprobe.system.ranges import RATE, Range

BATCH_SIZE = 32
EPOCHS = Range(1, 10_000)


def make_parser() -> Parser:
    parser = Parser(prog=command("sanity-check"), description=__doc__)
    parser.add_argument("--model", default="cnn", help="cnn or probe; default: cnn")
    parser.add_argument("--epochs", type=number_in(EPOCHS), default=30, help="maximum number of epochs; default: 30")
    parser.add_argument(
        "--lr", type=number_in(RATE, kind=float), help="learning rate of Adam; default: depends on the model"
    )
    add_data_flags(parser, default="CIFAR-10")
    return parser


def main() -> None:
    arguments, own_flags = make_parser().parse_known_args()

    from hfprobe.cli.run_flags import parse_options
    from hfprobe.models import find_family

    family = find_family(arguments.model)
    options = parse_options(arguments.model, own_flags)

    from transformers import set_seed

    from hfprobe.data.arguments import DataArguments
    from hfprobe.data.pixels.store import ImageBatches
    from hfprobe.data.splits.images import load_images
    from hfprobe.tasks.sanity_check.measure import overfit_batch

    quiet_libraries()
    set_seed(42)
    data = DataArguments(**read_data_flags(arguments), max_train_samples=BATCH_SIZE, max_eval_samples=BATCH_SIZE)
    images = load_images(data, seed=42)
    options = family.complete_options(options, images=images)
    model, processor = family.build(labels=images.class_names, options=options)
    train = images.decode("train", processor=processor).part("train")
    inputs = ImageBatches(train, processor=processor)
    family.initialize(model, options=options, images=inputs)
    batch = inputs.__getitems__(list(range(len(inputs))))
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
