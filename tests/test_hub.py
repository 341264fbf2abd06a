import json
import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageClassification

from hfprobe import hub
from hfprobe.errors import InputError, MachineError
from hfprobe.models import build_model

LABELS = ["airplane", "automobile", "bird", "cat", "dog"]
CARD = {
    "model": "cnn",
    "summary": "A model of a test.",
    "dataset": "uoft-cs/cifar10",
    "recipe": "fast",
    "seed": 1,
    "class_names": LABELS,
    "source": "a test",
    "images": {"train": 8, "validation": 4},
    "data_fingerprint": "0" * 64,
    "parameters": 2_471_941,
    "trainable_parameters": 2_471_941,
    "settings": {"learning_rate": 0.002},
    "hardware": {"cores": 2},
    "versions": {"torch": "2"},
    "git_sha": None,
    "result": {
        "metrics": {"accuracy": 0.9125, "macro_f1": 0.9, "loss": 0.3},
        "n_validation": 4,
        "epochs": 2.0,
        "best_epoch": 1.0,
        "seconds": 3.0,
    },
}


def cat_model():
    """A SimpleCNN that says `cat` to every picture."""
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=LABELS)
    with torch.no_grad():
        model.classifier[-1].bias[LABELS.index("cat")] = 100
    return model.eval(), processor


@pytest.fixture
def pushed(tmp_path):
    model, processor = cat_model()
    hub_dir = tmp_path / "hub"
    return (
        model,
        hub_dir,
        hub.push_model(model=model, processor=processor, hub_dir=hub_dir, name="simple-cnn", card=CARD),
    )


def write_text(text):
    return lambda folder: (folder / "config.json").write_text(text)


def in_a_process_without_hfprobe(code, tmp_path):
    """Run code where `import hfprobe` fails; its standard output."""
    block = "import sys; sys.modules['hfprobe'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_round_trip_through_a_standard_client_gives_the_same_logits(pushed):
    model, hub_dir, _ = pushed
    loaded = AutoModelForImageClassification.from_pretrained(
        "hfprobe/simple-cnn", cache_dir=hub_dir, local_files_only=True
    )
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(loaded.eval()(images).logits, model(images).logits)
    assert loaded.config.id2label == dict(enumerate(LABELS))


def test_a_pipeline_in_a_process_without_hfprobe_says_cat(pushed, tmp_path):
    _, hub_dir, revision = pushed
    PIL.Image.new("RGB", (50, 40)).save(tmp_path / "picture.png")
    printed = in_a_process_without_hfprobe(
        f"""
        from transformers import AutoModelForImageClassification, pipeline
        classify = pipeline("image-classification", model={str(revision.path)!r}, trust_remote_code=True)
        print(classify({str(tmp_path / "picture.png")!r})[0]["label"])
        AutoModelForImageClassification.from_pretrained(
            "hfprobe/simple-cnn", cache_dir={str(hub_dir)!r}, local_files_only=True, trust_remote_code=True
        )
        """,
        tmp_path,
    )
    assert printed.split() == ["cat"]


def test_only_data_code_and_text_are_published(pushed):
    _, _, revision = pushed
    names = {file.name for file in revision.path.iterdir()}
    assert names == {"model.safetensors", "config.json", "preprocessor_config.json", "cnn.py", "README.md"}
    for file in revision.path.iterdir():
        assert file.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x02", b"PK")  # pickles and torch archives


def test_a_pickle_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=re.escape("'training_args.bin' cannot be published. Allowed: files ending in")
    ):
        hub.push_files(
            write=lambda folder: (folder / "training_args.bin").touch(), hub_dir=tmp_path / "hub", name="simple-cnn"
        )
    assert hub.list_revisions(hub_dir=tmp_path / "hub", name="simple-cnn") == []


def test_model_card_names_numbers_data_and_recipe(pushed):
    _, _, revision = pushed
    card = (revision.path / "README.md").read_text()
    for expected in ("accuracy | 91.25 %", "n = 4", "a test", "0" * 64, "`fast`", "learning_rate | 0.002", "2,471,941"):
        assert expected in card
    import yaml

    header = yaml.safe_load(card.split("---")[1])
    assert header["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.9125}


def test_a_new_push_is_a_new_revision_and_the_old_one_stays(tmp_path):
    first = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    second = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    revisions = hub.list_revisions(hub_dir=tmp_path, name="m")
    assert [revision.commit for revision in revisions] == [second.commit, first.commit]
    assert [revision.is_main for revision in revisions] == [True, False]
    assert hub.resolve_model(model="m", hub_dir=tmp_path) == second.path
    assert hub.resolve_model(model=f"hfprobe/m@{first.commit[:7]}", hub_dir=tmp_path) == first.path
    assert len(list((tmp_path / "models--hfprobe--m" / "blobs").iterdir())) == 1


def test_a_push_that_fails_leaves_main_and_no_staging(tmp_path, monkeypatch):
    first = hub.push_files(write=write_text("1"), hub_dir=tmp_path, name="m")

    def full_disk(folder):
        (folder / "config.json").write_text("2")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match=re.escape("failed: No space left on device. Nothing was published;")):
        hub.push_files(write=full_disk, hub_dir=tmp_path, name="m")
    assert [revision.commit for revision in hub.list_revisions(hub_dir=tmp_path, name="m")] == [first.commit]
    assert [path.name for path in tmp_path.iterdir()] == ["models--hfprobe--m"]


def test_pushes_at_once_all_arrive(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        pushes = [pool.submit(hub.push_files, write=write_text("{}"), hub_dir=tmp_path, name="m") for _ in range(8)]
    commits = {push.result().commit for push in pushes}
    revisions = hub.list_revisions(hub_dir=tmp_path, name="m")
    assert len(commits) == 8
    assert {revision.commit for revision in revisions} == commits
    assert sum(revision.is_main for revision in revisions) == 1


def test_damage_is_named(tmp_path):
    revision = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    hub.verify_revision(revision)
    (revision.path / "config.json").resolve().write_text("[]")
    with pytest.raises(InputError, match=re.escape(f"'config.json' of hfprobe/m@{revision.commit[:12]} is damaged.")):
        hub.verify_revision(revision)


def test_hf_cache_lists_it(pushed):
    _, hub_dir, revision = pushed
    command = Path(sys.executable).parent / "hf"
    if not command.exists():
        pytest.skip("the hf command is not installed")
    done = subprocess.run([command, "cache", "ls", "--cache-dir", hub_dir], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model/hfprobe/simple-cnn" in done.stdout
    assert "warning" not in done.stderr.lower()
    from huggingface_hub import scan_cache_dir

    scanned = scan_cache_dir(hub_dir)
    assert not scanned.warnings
    assert [found.commit_hash for repo in scanned.repos for found in repo.revisions] == [revision.commit]


@pytest.mark.parametrize("model", ["../secret", "/nowhere/at/all", "hfprobe/../x", "nothing", "simple-cnn/../x"])
def test_names_that_are_no_names(pushed, model):
    _, hub_dir, _ = pushed
    expected = (
        f"No model '{model}': neither a folder nor a name in the hub folder '{hub_dir}', which has: simple-cnn. "
        "Train one: python scripts/train.py --model cnn"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model=model, hub_dir=hub_dir)


@pytest.mark.parametrize("revision", ["1234567", "abc", "../.."])
def test_unknown_revision(pushed, revision):
    _, hub_dir, known = pushed
    expected = f"No revision '{revision}' of simple-cnn. Known, newest first: {known.commit[:12]}."
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model=f"simple-cnn@{revision}", hub_dir=hub_dir)


def test_folder_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}' is not a model folder: it has no config.json.")):
        hub.resolve_model(model=str(tmp_path), hub_dir=tmp_path / "hub")


def test_config_says_where_its_code_is(pushed):
    config = json.loads((pushed[2].path / "config.json").read_text())
    assert config["auto_map"]["AutoModelForImageClassification"] == "cnn.SimpleCNN"
