"""Write the tables and bar charts of a profile."""

from __future__ import annotations

from pathlib import Path

from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import draw_bars, draw_shares, shorten_names
from hfprobe.system.files import replace_together
from hfprobe.tasks.profile.result import Profile


def render_summary(profile: Profile) -> str:
    """The costs as Markdown."""
    environment = make_environment(__file__, markdown=True)
    return environment.get_template("summary.md.j2").render(profile=profile, models=profile.models)


def write_profile(profile: Profile, folder: Path) -> Path:
    """Write profile.md, throughput.png, latency.png, memory.png and operators.png; return the path of profile.md."""
    models = profile.models
    short = dict(zip(models, shorten_names(models), strict=True))
    timed = {
        f"{name}, {file}" if file else name: batches
        for name, model in models.items()
        for file, batches in model.batches_of_all.items()
    }
    latency, upper = (
        {
            name: {f"batch of {size}": getattr(batch.latency_ms, key) for size, batch in batches.items()}
            for name, batches in timed.items()
        }
        for key in ("p50", "p95")
    )
    figures = {
        "throughput.png": draw_bars(
            {
                name: {f"batch of {size}": batch.throughput.median for size, batch in batches.items()}
                for name, batches in timed.items()
            },
            title="Throughput (median)",
            unit="images/s",
        ),
        "latency.png": draw_bars(
            latency, upper=upper, title="Latency (bar: p50, line: up to p95)", unit="ms per batch"
        ),
        "memory.png": draw_bars(
            {
                name: ({"peak memory\n(MB)": model.peak_memory_bytes / 1e6} if model.peak_memory_bytes else {})
                | {
                    "weights on\ndisk (MB)": model.disk_bytes / 1e6,
                    "MACs per image\n(millions)": model.macs / 1e6,
                    "parameters\n(millions)": model.network.parameters / 1e6,
                }
                for name, model in models.items()
            },
            title="Memory and size",
            unit="MB, millions",
        ),
        "operators.png": draw_shares(
            {
                f"{short[name]}, {what}": {
                    kind: getattr(shares, what) for kind, shares in model.operators.kinds.items()
                }
                for what in ("time", "memory")
                for name, model in models.items()
            },
            title="Time and memory by kind of operator",
        ),
    }
    text = (
        make_environment(__file__, markdown=True).get_template("profile.md.j2").render(profile=profile, models=models)
    )
    with replace_together(folder, last="profile.md") as staging:
        for name, figure in figures.items():
            (staging / name).write_bytes(figure)
        (staging / "profile.md").write_text(text, encoding="utf-8")
    return folder / "profile.md"
