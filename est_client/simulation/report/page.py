"""The page: self-contained, with nothing to load and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from est_client.durable_files import require_writable, write_durably
from est_client.simulation import outputs
from est_client.simulation.report import plots
from est_client.simulation.results import FleetResult, quantile_of
from est_client.simulation.traffic import PhaseTraffic

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --dim: #667; --rule: #e3e6ea;
  --card: #f7f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #15181c; --dim: #9aa0a8;
  --rule: #2c3138; --card: #1c2026; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1360px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .dim, figcaption { color: var(--dim); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  padding: .5rem .9rem; } .tiles b { display: block; font-size: 1.25rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr));
  gap: 1.2rem; margin: 1.2rem 0; align-items: start; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; padding: .7rem; }
figcaption { font-size: .9rem; margin-bottom: .3rem; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .title { fill: var(--dim); } svg .grid { stroke: var(--rule); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em;
  border-radius: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric:
  tabular-nums; } th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid
  var(--rule); white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
thead th { color: var(--dim); font-weight: 600; }
"""

_NAMES = ("index.html", "results.json", "devices.csv")


def prepare_report(directory: Path) -> None:
    """Make the directory of a report, and check that one can be written there.

    :raises OSError: it cannot.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in _NAMES:
        require_writable(directory / name)


def write_report(directory: Path, results: Sequence[FleetResult], labels: Sequence[str]) -> Path:
    """Write the page, with the figures as JSON and CSV beside it.

    :param directory: made if it is not there.
    :param labels: what the runs differ by; one empty text if there is one run.
    :return: the page.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = (page(results, labels), outputs.to_json(results), outputs.to_csv(results))
    for name, content in zip(_NAMES, contents, strict=True):
        write_durably(directory / name, content.encode(), mode=0o644)
    return directory / _NAMES[0]


def page(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """The page."""
    body = _single(results[0]) if len(results) == 1 else _comparison(results, labels)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>EST enrollment, simulated</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}{_footer()}</body></html>\n"
    )


def _single(result: FleetResult) -> Iterator[str]:
    scenario = result.scenario
    yield f"<h1>{len(result.devices)} devices enroll over {escape(scenario.profile.name)}</h1>"
    yield f'<p class="dim">{escape(scenario.profile.about)}</p>'
    yield f"<p>{escape(plots.headline(result))}</p>"
    yield _tiles(result)
    figures = [
        ("How long it takes", plots.time_distribution([result], [""])),
        ("The fleet over time", plots.completion([result], [""])),
        ("What crosses the link", plots.octets_by_phase([result], [""])),
        ("Loss and time of each device", plots.loss_against_time(result)),
        ("What the server sees", plots.server_view(result)),
        ("Energy", plots.energy([result], [""])),
    ]
    yield _figures(figures)
    yield "<h2>Per device and phase</h2>" + _phase_table(result)
    yield from _failures(result)
    yield from _server(result)
    yield from _setting(result)


def _comparison(results: Sequence[FleetResult], labels: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{len(results)} runs compared</h1>"
    yield "<p>Every run differs from the setting below by what its name says.</p>"
    yield "<h2>The runs</h2>" + _run_table(results, labels)
    sweep = plots.loss_sweep(results)
    figures = [
        ("Time to certificate", plots.time_by_run(results, labels)),
        ("Its distribution", plots.time_distribution(results, labels)),
        ("What crosses the link", plots.octets_by_phase(results, labels)),
        ("Energy", plots.energy(results, labels)),
        ("The fleet over time", plots.completion(results, labels)),
        ("Loss against success and time", sweep),
    ]
    yield _figures(figures)
    for result, label in zip(results, labels, strict=True):
        yield f"<h2>{escape(label)}</h2><p>{escape(plots.headline(result))}</p>"
        yield _phase_table(result)
        yield from _failures(result)
    yield from _setting(results[0])


def _figures(figures: Sequence[tuple[str, str | None]]) -> str:
    drawn = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>"
        for title, plot in figures
        if plot is not None
    )
    return f'<div class="plots">{drawn}</div>'


def _tiles(result: FleetResult) -> str:
    figures = outputs.summary(result)
    tiles = {
        "enrolled": f"{figures['success']:.1%}",
        "half of them after": outputs.seconds(figures["seconds p50"]),
        "99 % after": outputs.seconds(figures["seconds p99"]),
        "octets per device": f"{figures['octets per device']:.0f}",
        "frames per device": f"{figures['frames per device']:.0f}",
        "repeats per device": f"{figures['repeats per device']:.2f}",
        "energy per device, by table": f"{_energy(figures):.1f} mJ",
    }
    if figures["most certificates of a device"] is not None:
        tiles["certificates, most of one device"] = (
            f"{figures['certificates in ledger']}, {figures['most certificates of a device']}"
        )
    cells = "".join(f"<div><b>{escape(v)}</b>{escape(k)}</div>" for k, v in tiles.items())
    return f'<div class="tiles">{cells}</div>'


def _energy(figures: Mapping[str, float]) -> float:
    return figures["radio mJ per device"] + figures["computing mJ per device"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _phase_table(result: FleetResult) -> str:
    count = len(result.devices)
    phases: dict[str, PhaseTraffic] = {p.value: t for p, t in result.phases.items()}
    phases["together"] = sum(result.phases.values(), start=PhaseTraffic())
    head = (
        "phase", "octets up", "octets down", "datagrams", "frames", "octets on the air",
        "repeats", "round trips", "seconds",
    )  # fmt: skip
    rows = []
    for name, traffic in phases.items():
        up, down = traffic.up, traffic.down
        rows.append(
            (
                name,
                f"{up.octets / count:.0f}",
                f"{down.octets / count:.0f}",
                f"{(up.datagrams + down.datagrams) / count:.1f}",
                f"{(up.frames + down.frames) / count:.1f}",
                f"{(up.air_octets + down.air_octets) / count:.0f}",
                f"{traffic.repeats / count:.2f}",
                f"{traffic.round_trips / count:.1f}",
                f"{traffic.seconds / count:.2f}",
            )
        )
    return _table(head, rows)


def _run_table(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    head = (
        "run", "enrolled", "p50", "p99", "octets", "frames", "octets on the air", "repeats",
        "round trips", "mJ",
    )  # fmt: skip
    rows = []
    for result, label in zip(results, labels, strict=True):
        figures = outputs.summary(result)
        rows.append(
            (
                label,
                f"{figures['success']:.1%}",
                outputs.seconds(figures["seconds p50"]),
                outputs.seconds(figures["seconds p99"]),
                f"{figures['octets per device']:.0f}",
                f"{figures['frames per device']:.1f}",
                f"{figures['air octets per device']:.0f}",
                f"{figures['repeats per device']:.2f}",
                f"{figures['round trips per device']:.1f}",
                f"{_energy(figures):.1f}",
            )
        )
    return _table(head, rows)


def _failures(result: FleetResult) -> Iterator[str]:
    if result.failures:
        rows = [(why, str(count)) for why, count in result.failures.most_common()]
        yield "<h2>Why devices have no certificate</h2>" + _table(("reason", "devices"), rows)
    if result.setbacks:
        rows = [(why, str(count)) for why, count in result.setbacks.most_common(20)]
        yield "<h2>Why attempts failed</h2>" + _table(("reason", "attempts"), rows)
    if result.not_arrived:
        rows = [(fate.value, str(count)) for fate, count in result.not_arrived.most_common()]
        yield "<h2>Datagrams that did not arrive</h2>" + _table(("reason", "datagrams"), rows)


def _server(result: FleetResult) -> Iterator[str]:
    server = result.server
    if server is None:
        return
    rows = [(op, word, str(n)) for (op, word), n in sorted(server.answers.items())]
    yield "<h2>The server</h2>" + _table(("operation", "outcome", "requests"), rows)
    if server.latencies:
        ordered = sorted(server.latencies)
        halves = [f"p{q * 100:g} {1e3 * quantile_of(ordered, q):.1f} ms" for q in (0.5, 0.9, 0.99)]
        yield (
            f'<p class="dim">From request to answer, in real time on this machine: '
            f"{', '.join(halves)}; {server.most_working} requests and {server.most_sessions} "
            "sessions at a time at most.</p>"
        )
        waits = sorted(server.waits)
        halves = [outputs.seconds(quantile_of(waits, q)) for q in (0.5, 0.99, 1.0)]
        if waits[-1]:
            yield (
                '<p class="dim">In simulated time, waiting for a worker included: '
                f"p50 {halves[0]}, p99 {halves[1]}, the longest {halves[2]}.</p>"
            )


def _setting(result: FleetResult) -> Iterator[str]:
    rows = [(key, str(value)) for key, value in outputs.described(result.scenario).items()]
    yield "<h2>The setting</h2>" + _table(("", ""), rows)
    profile, mcu = result.scenario.profile, result.scenario.microcontroller
    sources = [*profile.sources, f"{profile.radio.name}: {profile.radio.source}"]
    if mcu is not None:
        sources.append(f"{mcu.name}: {mcu.source}")
    yield "<h2>Where the numbers come from</h2><ul>"
    yield "".join(f"<li>{escape(source)}</li>" for source in sources) + "</ul>"


def _footer() -> str:
    return (
        '<p class="dim">Octets, datagrams, frames, repeats and times are counted in the simulation '
        "of a link; client, server, DTLS and TLS are the real ones. Energy is air time and "
        "computing time times a table of published currents: waiting and sleeping are not in it. "
        "Made by <code>est-client simulate</code>; results.json and devices.csv are beside this "
        "page.</p>"
    )
