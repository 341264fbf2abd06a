"""Try trained models on a local page: one picture, the answers of all models side by side.

    hfprobe demo                                    # all models of the hub folder, on http://127.0.0.1:7870
    hfprobe demo --models simple-cnn linear-probe --port 0

The page shows the probabilities, the time, whether the answer is sure, and the image that the network reads. Pictures
are decoded in memory, as hfprobe predict decodes them; nothing leaves the machine. A picture whose answer is wrong is
kept with its label in the folder of --feedback, once a button on the page is pressed. Ctrl-C ends the command.

Exit code: 130 after Ctrl-C; 2 for a wrong flag, or a port that is in use; 3 if disk or memory ran out.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.process import command
from hfprobe.system.ranges import Range

logger = logging.getLogger(__name__)

PORT = 7870
PORTS = Range(0, 65535, reason="0: a free port")


def make_parser() -> Parser:
    parser = Parser(prog=command("demo"), description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="model folders, or names in the hub folder, such as simple-cnn; default: all models of the hub folder",
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument("--port", type=number_in(PORTS), default=PORT, help=f"0: a free port; default: {PORT}")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on. The default is reached from this machine only; with another one, everyone who "
        "reaches it can use the page and add feedback. Default: 127.0.0.1",
    )
    parser.add_argument(
        "--feedback",
        type=Path,
        default=Path("demo-feedback"),
        metavar="FOLDER",
        help="folder for pictures with a corrected label, and their table labels.csv; default: demo-feedback",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="two or more evaluations of the same images; the page offers those images that the models disagree on",
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    check_writable(arguments.feedback, flag="--feedback")
    quiet_libraries()
    use_every_core()
    from hfprobe.hub.local import list_models, resolve_model
    from hfprobe.training.run_files import check_places

    names = list(dict.fromkeys(arguments.models or list_models(arguments.hub_dir)))
    if not names:
        raise InputError(
            f"The hub folder '{arguments.hub_dir}' has no model. Pass --models with model folders, or train one: "
            f"{command('train')} --model cnn"
        )
    folders = [resolve_model(model=name, hub_dir=arguments.hub_dir) for name in names]
    check_places(arguments.feedback, flag="--feedback", models=folders, hub_dir=arguments.hub_dir)
    from hfprobe.tasks.demo.disputed import find_disputed
    from hfprobe.tasks.demo.measure import load_models
    from hfprobe.tasks.demo.serving import serve

    disputed = find_disputed(arguments.reports)
    server = serve(
        load_models(names, folders),
        host=arguments.host,
        port=arguments.port,
        feedback=arguments.feedback,
        disputed=disputed,
    )
    print(f"Open {server.url} in a browser; Ctrl-C ends this command.", flush=True)
    if not server.is_loopback:
        logger.warning("Everyone who reaches %s can use this page: it has no password and no encryption.", server.url)
    server.serve_forever()
