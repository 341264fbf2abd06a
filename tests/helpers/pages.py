"""What a reader and a browser find on an HTML page."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """What the tests ask of a page: its tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def section_of(path, name):
    page = path.read_text()
    start = page.index(f'<section aria-labelledby="{name}">')
    return page[start : page.index("</section>", start)]


def title_after_sorting(page, column):
    """What a headless Chromium finds after a click on a column of the first table: sorted names, broken, loaded."""
    # It writes what the page then looks like into its title, where --dump-dom shows it.
    probe = f"""<script>
      addEventListener("error", event => document.title = "error " + event.message);
      addEventListener("load", () => {{
        const table = document.querySelector("table.sortable");
        table.querySelectorAll("th button")[{column}].click();
        const order = [...table.querySelectorAll("tbody th")].map(cell => cell.textContent);
        const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
        const loaded = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
        document.title = ["sorted", order.join(","), broken, loaded].join(" ");
      }});
    </script></head>"""
    (page.parent / "probe.html").write_text(page.read_text().replace("</head>", probe))
    return re.search("<title>(.*?)</title>", dump_dom(page.parent / "probe.html"))[1]


# Elements whose content is wider than they are, or which reach over the edge of their parent, and texts of a figure
# that reach over its edge. A cell is measured by its content; a hidden element has no width.
WIDER_THAN_ITS_CONTAINER = """<script>
  addEventListener("load", () => {
    for (const element of document.querySelectorAll("details")) element.open = true;
    const found = [], page = document.scrollingElement;
    const name = (element, by) => found.push(
      `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""} (${by.toFixed(0)} px): ` +
      element.textContent.trim().slice(0, 40));
    if (page.scrollWidth > innerWidth) name(page, page.scrollWidth - innerWidth);
    for (const element of document.body.querySelectorAll("*")) {
      const box = element.getBoundingClientRect();
      if (!box.width || element.closest("script, style")) continue;
      if (element.ownerSVGElement) {
        const edge = element.ownerSVGElement.getBoundingClientRect();
        if (box.right > edge.right + 1 || box.left < edge.left - 1) name(element, box.right - edge.right);
        continue;
      }
      const edge = element.parentElement.getBoundingClientRect();
      if (box.right > edge.right + 1) name(element, box.right - edge.right);
      else if (element.clientWidth && element.scrollWidth > element.clientWidth + 1)
        name(element, element.scrollWidth - element.clientWidth);
      else if (getComputedStyle(element).overflowY == "hidden" && element.scrollHeight > element.clientHeight + 1)
        name(element, element.scrollHeight - element.clientHeight);
    }
    parent.postMessage([location.hash.slice(1), found], "*");
  });
</script></head>"""


def too_wide(pages, widths):
    """What is wider than its container or cut, as a headless Chromium draws the pages: (page, width) -> sentences.

    Args:
        pages: name -> path.
        widths: of the window, in pixels.
    """
    folder = next(iter(pages.values())).parent
    frames = []
    for name, path in pages.items():
        probe = folder / f"probe-{len(frames)}.html"
        probe.write_text(path.read_text().replace("</head>", WIDER_THAN_ITS_CONTAINER))
        frames += [
            f'<iframe width="{width}" height="800" src="{probe.name}#{name}|{width}"></iframe>' for width in widths
        ]
    (folder / "frames.html").write_text(f"""<pre></pre><style>iframe {{ border: 0 }}</style><script>
      const found = {{}};
      addEventListener("message", event => {{
        found[decodeURI(event.data[0])] = event.data[1];
        document.querySelector("pre").textContent = JSON.stringify(found);
      }});
    </script>{"".join(frames)}""")
    written = re.search("<pre>(.*?)</pre>", dump_dom(folder / "frames.html"), re.DOTALL)[1]
    found = {tuple(key.split("|")): value for key, value in json.loads(html.unescape(written)).items()}
    return {(name, int(width)): value for (name, width), value in found.items()}


def dump_dom(page):
    """The document as a headless Chromium has it after loading."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout
