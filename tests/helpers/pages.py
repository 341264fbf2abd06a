"""What a reader and a browser find on an HTML page."""

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
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
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
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page.parent / 'probe.html'}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return re.search("<title>(.*?)</title>", done.stdout)[1]
