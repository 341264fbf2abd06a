"""The page of `hfprobe export --web` in a headless Chromium, from a static server and opened as a file."""

import base64
import functools
import http.server
import json

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

import hfprobe
from helpers.chromium import Chromium
from helpers.exported import find_runtime, push
from helpers.image_kinds import KINDS, encode, turned
from helpers.pages import TOO_FAINT, WIDER_THAN_ITS_CONTAINER
from helpers.servers import answering
from helpers.with_onnx import onnx  # noqa: F401  skips without the extra
from hfprobe.data.pixels.image_files import read_image
from hfprobe.models.thresholds import Thresholds
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.tasks.export.result import CLASSIFIER, check_export
from hfprobe.tasks.export.web import write_web

pytestmark = pytest.mark.slow

STATUS = "document.querySelector('#status').textContent"
READY = f"{STATUS} == 'The model is ready.'"
FIRST = "document.querySelector('.first')?.textContent"
# What the page reads of a file and answers, in all digits: [width, height, RGB bytes, probabilities].
ANSWER = """(async content => {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  const pixels = await readPixels(new File([bytes], "picture"));
  const {probabilities} = await classify(await model, pixels);
  const text = Array.from(pixels.data, value => String.fromCharCode(value)).join("");
  return [pixels.width, pixels.height, btoa(text), probabilities];
})"""
# Gives the page a file as a drop or a paste does.
GIVE = """(content => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], "picture.png", {type: "image/png"}));
  document.dispatchEvent(%s);
})"""
EVENTS = {
    "drop": "new DragEvent('drop', {dataTransfer: data, cancelable: true})",
    "paste": "new ClipboardEvent('paste', {clipboardData: data})",
}


def scene(height, width, channels=3):
    """Waves of several colours with noise, also in transparency."""
    generator = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 110 * np.sin(x / (7 + 3 * at) + y / (11 + 5 * at) + height) for at in range(channels)]
    noisy = np.stack(waves, -1) + generator.normal(0, 12, (height, width, channels))
    return PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8).squeeze())


def other_gamma():
    """A PNG file whose header asks for other colours, which hfprobe does not apply."""
    info = PIL.PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    return encode(scene(60, 90), "PNG", pnginfo=info)


EXACT = {
    "small PNG": encode(scene(20, 20), "PNG"),
    "large PNG": encode(scene(375, 500), "PNG"),
    "narrow PNG": encode(scene(300, 30), "PNG"),
    "turned PNG": turned(scene(60, 90), "PNG"),
    "half-transparent PNG": encode(scene(60, 90, 4), "PNG"),
    "grey PNG": encode(scene(60, 90, 1), "PNG"),
    "PNG with a palette": encode(scene(60, 90).quantize(64), "PNG", transparency=3),
    "PNG with a gamma": other_gamma(),
    "GIF of two frames": KINDS["GIF of two frames"](90, 60)[0],
}
# Decoders of JPEG may round otherwise.
LOSSY = {"JPEG": encode(scene(375, 501), "JPEG", quality=80), "turned JPEG": turned(scene(60, 90), "JPEG")}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


@pytest.fixture(scope="module")
def exported(tmp_path_factory, dataset_folder, narrow_network):
    """A model that is sure of what is above 60 %, and the folder of its page."""
    runtime, root = find_runtime(), tmp_path_factory.mktemp("web")
    chosen = [ChosenThreshold(accuracy, 0.6, 9, 9) for accuracy in (0.9, 0.95, 0.98, 0.99)]
    folder = push(root / "hub", dataset_folder, thresholds=Thresholds(chosen, chosen))
    model = hfprobe.load(folder)
    model.export()
    write_web(root / "page", export=check_export(folder), model=folder, exported=CLASSIFIER, runtime=runtime)
    return model, root / "page"


@pytest.fixture(scope="module")
def address(exported):
    """Of a static server of the page, as `python -m http.server` is one."""
    handler = functools.partial(QuietHandler, directory=str(exported[1]))
    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "picture.png").write_bytes(EXACT["turned PNG"])
    return tmp_path / "picture.png"


def open_page(browser, address, width=1200, **options):
    browser.open(address, width=width, **options)
    browser.wait_for(f"{STATUS} != 'The model is loading …'")
    assert browser.evaluate(READY), browser.evaluate(STATUS)


def test_the_page_answers_as_predict(browser, exported, address):
    model, _ = exported
    open_page(browser, address)
    for kind, content in (EXACT | LOSSY).items():
        argument = json.dumps(base64.b64encode(content).decode())
        width, height, data, found = browser.evaluate(f"{ANSWER}({argument})")
        pixels = np.frombuffer(base64.b64decode(data), dtype=np.uint8).reshape(height, width, 3)
        wanted = np.asarray(read_image(content).image)
        assert wanted.shape == pixels.shape, kind
        assert np.abs(wanted.astype(int) - pixels).max() <= (2 if kind in LOSSY else 0), kind
        (expected,) = model.predict(pixels, temperature=True).probabilities
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize("how", ["served", "opened as a file"])
def test_a_chosen_picture_is_answered_and_no_other_place_is_asked(browser, exported, address, picture, how):
    model, folder = exported
    address = address if how == "served" else f"file://{folder}/"
    open_page(browser, address if how == "served" else f"{address}index.html")
    browser.choose("#file", picture)
    browser.wait_for(f"{STATUS} == '90 \u00d7 60 pixels.'")
    answer = model.predict(picture, temperature=True)
    assert browser.evaluate(FIRST) == answer.labels[0]
    largest = answer.probabilities.max()
    shares = browser.evaluate("[...document.querySelectorAll('.answer dd')].map(share => share.textContent)")
    assert shares[0] == f"{100 * largest:.1f}\u00a0%"
    said = browser.evaluate("document.querySelector('.sure').textContent")
    assert said.startswith("sure: threshold 60.0" if largest >= 0.6 else "not sure: threshold 60.0")
    assert said.endswith(" ms")
    own = tuple(f"request: {place}" for place in (address, "blob:"))
    assert [found for found in browser.complaints() if not found.startswith(own)] == []


@pytest.mark.parametrize("event", EVENTS)
def test_a_picture_is_dropped_or_pasted_while_the_model_loads(browser, exported, address, event):
    browser.open(address, width=800)
    browser.evaluate(f"({GIVE % EVENTS[event]})({json.dumps(base64.b64encode(EXACT['small PNG']).decode())})")
    browser.wait_for(f"{STATUS} == '20 \u00d7 20 pixels.'")
    assert browser.evaluate(FIRST) == exported[0].predict(EXACT["small PNG"]).labels[0]


def test_what_is_read_otherwise_or_not_at_all_is_refused_and_takes_the_answer_away(browser, address, picture, tmp_path):
    open_page(browser, address)
    for content, message in {
        KINDS["12 bits in a 16-bit PNG"](90, 60)[0]: "This is a 16-bit PNG file, ",
        b"no picture": "This picture cannot be read: ",
        b"": "This picture cannot be read: ",
        EXACT["large PNG"][:1000]: "This picture cannot be read: ",
    }.items():
        browser.choose("#file", picture)
        browser.wait_for(f"{STATUS} == '90 \u00d7 60 pixels.'")
        (tmp_path / "other.png").write_bytes(content)
        browser.choose("#file", tmp_path / "other.png")
        browser.wait_for(f"{STATUS}.startsWith({json.dumps(message)})")
        assert browser.evaluate("document.querySelector('#result').hidden")


def test_a_file_that_is_missing_beside_the_page_is_named(browser, exported, tmp_path):
    (tmp_path / "index.html").write_bytes((exported[1] / "index.html").read_bytes())
    browser.open(tmp_path / "index.html", width=800)
    browser.wait_for(f"{STATUS}.startsWith('The file ort.wasm.min.js beside this page cannot be read. Copy the whole')")
    assert browser.evaluate(STATUS).endswith("Type in its folder: python -m http.server")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_its_window_and_is_legible(browser, address, picture, width, scheme):
    open_page(browser, address, width=width, scheme=scheme)
    browser.choose("#file", picture)
    browser.wait_for(f"{STATUS} == '90 \u00d7 60 pixels.'")
    assert browser.evaluate(WIDER_THAN_ITS_CONTAINER) == []
    assert browser.evaluate(TOO_FAINT) == []


def test_the_page_is_used_with_the_keyboard(browser, address):
    open_page(browser, address)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "file"
    assert browser.evaluate("getComputedStyle(document.querySelector('[for=file]')).outlineStyle") == "solid"
