"""From images to a verdict in Python: train both models, classify an image, compare.

    python examples/quickstart.py                        # airplane against bird, 2 epochs: a minute on two CPU cores
    python examples/quickstart.py --dataset photos       # your own folder, see README

The quick settings are there to show the road, not to reach the best accuracy: drop `max_train_samples` and `epochs` for
that. The probe's backbone comes from the hub; pass random weights where it cannot be reached, and its accuracy means
nothing.
"""

import argparse

import hfprobe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="uoft-cs/cifar10", help="default: uoft-cs/cifar10")
    parser.add_argument("--classes", nargs="+", default=["airplane", "bird"], help="default: airplane bird")
    parser.add_argument("--backbone", default="resnet18.a1_in1k", help="any timm model; default: resnet18.a1_in1k")
    parser.add_argument("--backbone_weights", default="hub", help="hub, random, or a file; default: hub")
    arguments = parser.parse_args()

    data = hfprobe.load_images(arguments.dataset, classes=arguments.classes, max_train_samples=1000)
    print(data)

    cnn = hfprobe.train("cnn", data, epochs=2, output_dir="runs/quickstart-cnn", overwrite=True)
    probe = hfprobe.train(
        "probe",
        data,
        backbone=arguments.backbone,
        backbone_weights=arguments.backbone_weights,
        output_dir="runs/quickstart-probe",
        overwrite=True,
    )

    comparison = hfprobe.compare(cnn.evaluate(), probe.evaluate())
    print(comparison.verdict)
    print("Page:", hfprobe.save_report(comparison, "reports/quickstart"))

    cnn.save("models/quickstart-cnn")
    print(hfprobe.load("models/quickstart-cnn").labels)


if __name__ == "__main__":
    main()
