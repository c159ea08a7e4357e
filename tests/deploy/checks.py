#!/usr/bin/env python3
"""One check of deploy/ and its documents a call: `checks.py NAME [ARGUMENT...]`. Exit 0: holds. Exit 1: every problem on a line.

Standard library only. It knows the files and nothing of how tools are run: that is `run` beside it.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/wsgate.service"
DROP_IN = ROOT / "deploy/systemd/handover.conf"
CONTAINERFILE = ROOT / "deploy/container/Containerfile"
CONTAINER_CONFIG = ROOT / "deploy/container/wsgate.toml"
RULES = ROOT / "deploy/prometheus/wsgate.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/wsgate.rules.test.yml"
DASHBOARD = ROOT / "deploy/grafana/wsgate.json"
METRICS_DOC = ROOT / "docs/metrics.md"
OPERATING_DOC = ROOT / "docs/operating.md"
DOCS = [METRICS_DOC, OPERATING_DOC, ROOT / "docs/out-of-scope.md"]

# Labels that Prometheus adds at the scrape, and that of a histogram's buckets.
SCRAPE_LABELS = {"job", "instance"}
# Families that a quiet gateway does not show: they need a fault, a relaxed route, or checks.
EVENT_ONLY = {
    "wsgate_would_refuse_total",
    "wsgate_backend_failures_total",
    "wsgate_shared_limits_up",
    "wsgate_shared_limits_failures_total",
    "wsgate_backend_transitions_total",
    "wsgate_backend_checks_total",
    "wsgate_backend_check_duration_seconds",
    # They need TLS, which the configuration of the test has not.
    "wsgate_tls_handshakes_total",
    "wsgate_tls_handshake_failures_total",
    "wsgate_tls_certificate_not_after_timestamp_seconds",
}
# Families of servers that are given by name.
EVENT_ONLY |= {f"wsgate_discovery_{what}" for what in ("lookups_total", "servers", "last_success_timestamp_seconds")}
# The drain, where a configuration does not name it.
DRAIN_DEFAULT = {"delay": "0s", "timeout": "30s"}


class Problems:
    def __init__(self):
        self.lines = []

    def add(self, line):
        self.lines.append(line)

    def expect(self, holds, line):
        if not holds:
            self.add(line)


# --- what the documents and files say ---------------------------------------------------------------------------------


def families():
    """docs/metrics.md -> {name: (type, set of labels)}. A row of a table whose first two cells are a name and a type."""
    found = {}
    row = re.compile(r"^\| `([a-z0-9_:]+)` \| (counter|gauge|histogram) \| ([^|]*) \|")
    for line in METRICS_DOC.read_text().splitlines():
        if m := row.match(line):
            name, kind, labels = m.groups()
            if name in found:
                raise SystemExit(f"docs/metrics.md names `{name}` twice")
            found[name] = (kind, set(re.findall(r"`([a-z0-9_]+)`", labels)))
    if len(found) < 20:
        raise SystemExit(f"docs/metrics.md: found only {len(found)} families; is the table's form still the same?")
    return found


def rule_blocks():
    """wsgate.rules.yml -> [(kind, name, text of the block)]. The file keeps to one form, so that no YAML reader is needed."""
    parts = re.split(r"^      - (alert|record): (\S+)$", RULES.read_text(), flags=re.M)
    blocks = list(zip(parts[1::3], parts[2::3], parts[3::3]))
    if len(blocks) < 15:
        raise SystemExit(f"wsgate.rules.yml: found only {len(blocks)} rules; is the file's form still the same?")
    return blocks


def rule_expression(block):
    m = re.search(r"^        expr: (?:>-\n((?:          .*\n?)+)|(.*)$)", block, flags=re.M)
    if not m:
        raise SystemExit(f"wsgate.rules.yml: a rule without an expression: {block[:80]!r}")
    return " ".join((m.group(1) or m.group(2)).split())


def dashboard_queries():
    """Every PromQL expression of the dashboard, with where it stands."""
    board = json.loads(DASHBOARD.read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            found.append((f"panel `{panel['title']}`", target["expr"]))
    for note in board["annotations"]["list"]:
        found.append((f"annotation `{note['name']}`", note["expr"]))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            m = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            if not m:
                raise SystemExit(f"variable `{variable['name']}`: not label_values(selector, label)")
            found.append((f"variable `{variable['name']}`", f"count by ({m.group(2)}) ({m.group(1)})"))
    if len(found) < 25:
        raise SystemExit(f"wsgate.json: found only {len(found)} queries")
    return found


def document_queries():
    found = []
    for doc in (METRICS_DOC, OPERATING_DOC):
        for block in re.findall(r"^```promql\n(.*?)^```$", doc.read_text(), flags=re.M | re.S):
            found.append((doc.name, " ".join(block.split())))
    if len(found) < 8:
        raise SystemExit(f"docs: found only {len(found)} promql blocks")
    return found


def all_queries():
    rules = [(f"rule `{name}`", rule_expression(text)) for _, name, text in rule_blocks()]
    return rules + dashboard_queries() + document_queries()


def plain_promql(expr):
    """Grafana's variables replaced by values that Prometheus can parse."""
    return re.sub(r"\$__(rate_interval|interval|range)", "5m", expr)


# --- PromQL, as far as names go ----------------------------------------------------------------------------------------

PROMQL_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on", "ignoring", "group_left", "group_right"}


def names_in(expr):
    """-> ([(metric, labels in its selector)], set of labels in by, on and the like)"""
    text = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', '""', plain_promql(expr))
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\boffset\s+\w+", "", text)
    grouped = set()

    def take_group(m):
        grouped.update(re.findall(r"\w+", m.group(1)))
        return " "

    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", take_group, text)
    selectors = []

    def take_selector(m):
        selectors.append((m.group(1), set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", m.group(2)))))
        return " "

    text = re.sub(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", take_selector, text)
    for m in re.finditer(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?", text):
        if not m.group(2) and m.group(1).lower() not in PROMQL_WORDS:
            selectors.append((m.group(1), set()))
    return selectors, grouped


def family_of(name, known):
    """-> (family or None, labels that its series have)"""
    if name in known:
        return (name, known[name][1]) if known[name][0] != "histogram" else (None, set())
    m = re.fullmatch(r"(.+)_(bucket|sum|count)", name)
    if m and known.get(m.group(1), ("",))[0] == "histogram":
        return m.group(1), known[m.group(1)][1] | ({"le"} if m.group(2) == "bucket" else set())
    return None, set()


# --- the checks ---------------------------------------------------------------------------------------------------------


def names(problems):
    """Every metric and label that a rule, a panel or an example names is in docs/metrics.md, and none there is idle."""
    known = families()
    recorded = {name: rule_expression(text) for kind, name, text in rule_blocks() if kind == "record"}
    used = set()
    for where, expr in all_queries():
        metrics, grouped = names_in(expr)
        problems.expect(metrics, f"{where}: no metric found in `{expr}`")
        allowed = set(SCRAPE_LABELS)
        for name, labels in metrics:
            if name == "up":
                own = set()
            elif name in recorded:
                own = names_in(recorded[name])[1]
            else:
                family, own = family_of(name, known)
                if family is None:
                    problems.add(f"{where}: docs/metrics.md has no series `{name}`")
                    continue
                used.add(family)
            allowed |= own
            for label in sorted(labels - own - SCRAPE_LABELS):
                problems.add(f"{where}: `{name}` has no label `{label}`")
        for label in sorted(grouped - allowed):
            problems.add(f"{where}: no metric of it has the label `{label}`: `{expr}`")
    for name in sorted(n for n in set(known) - used if n.startswith("wsgate_")):
        problems.add(f"`{name}` is in docs/metrics.md and in no rule, panel or example")


def queries_as_rules(problems, target):
    """Writes every query of the dashboard and the documents as a recording rule, for promtool to parse."""
    lines = ["groups:", "  - name: parse", "    rules:"]
    for i, (_, expr) in enumerate(dashboard_queries() + document_queries()):
        lines += [f"      - record: parse:q{i}", "        expr: >-", f"          {plain_promql(expr)}"]
    Path(target).write_text("\n".join(lines) + "\n")


def alerts(problems):
    """Every alert has a severity, its texts, a runbook section that exists, and a test that fires and one that does not."""
    headings = anchors(OPERATING_DOC)
    tested = {}
    for block in re.split(r"^      - eval_time:", RULE_TESTS.read_text(), flags=re.M)[1:]:
        name = re.search(r"^        alertname: (\S+)$", block, flags=re.M).group(1)
        silent = re.search(r"^        exp_alerts: \[\]$", block, flags=re.M)
        fires = re.search(r"^          - exp_labels:$", block, flags=re.M)
        problems.expect(bool(silent) != bool(fires), f"a test of `{name}` neither fires nor is silent")
        tested.setdefault(name, set()).add("silent" if silent else "fires")
    known = {name: text for kind, name, text in rule_blocks() if kind == "alert"}
    for name, text in known.items():
        problems.expect(re.search(r"^          severity: (critical|warning|info)$", text, flags=re.M), f"`{name}`: no severity")
        for key in ("summary", "description"):
            problems.expect(re.search(rf'^          {key}: ".+"$', text, flags=re.M), f"`{name}`: no {key}")
        m = re.search(r'^          runbook: "docs/operating\.md#(\S+)"$', text, flags=re.M)
        problems.expect(m, f"`{name}`: no runbook")
        if m:
            problems.expect(m.group(1) == name.lower(), f"`{name}`: its runbook is `{m.group(1)}`")
            problems.expect(m.group(1) in headings, f"`{name}`: docs/operating.md has no heading `#{m.group(1)}`")
        for kind in ("fires", "silent"):
            problems.expect(kind in tested.get(name, ()), f"`{name}`: no unit test in which it {kind if kind == 'fires' else 'is silent'}")
    limit = tomllib.loads((ROOT / "conf/wsgate.toml").read_text())["listener"][0]["max_connections"]
    threshold = f"> {limit * 8 // 10}"
    near = rule_expression(known["WsgateConnectionsNearLimit"])
    problems.expect(near.endswith(threshold), f"80 % of the default max_connections is `{threshold}`, the rule has `{near}`")
    for name in sorted(set(tested) - set(known)):
        problems.add(f"a unit test of an alert that does not exist: `{name}`")
    for heading in sorted(h for h in headings if h.startswith("wsgate") and h not in {n.lower() for n in known}):
        problems.add(f"docs/operating.md has a section of an alert that does not exist: `{heading}`")


def anchors(doc):
    """Headings of a Markdown file as GitHub makes anchors of them."""
    text = re.sub(r"^```.*?^```$", "", doc.read_text(), flags=re.M | re.S)
    found = set()
    for title in re.findall(r"^#+ (.+)$", text, flags=re.M):
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return found


def links(problems):
    """Every link of the documents to a file or a section of the repository leads somewhere."""
    count = 0
    for doc in DOCS:
        text = re.sub(r"^```.*?^```$", "", doc.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            count += 1
            path, _, anchor = target.partition("#")
            file = (doc.parent / path).resolve() if path else doc
            if not file.exists():
                problems.add(f"{doc.name}: no file `{path}`")
            elif anchor and anchor not in anchors(file):
                problems.add(f"{doc.name}: `{path}` has no section `#{anchor}`")
    problems.expect(count > 5, f"found only {count} links")


def dashboard(problems):
    """What Grafana would trip over: ids, references, places, data sources, variables."""
    board = json.loads(DASHBOARD.read_text())
    problems.expect(board["uid"] == "wsgate" and board["id"] is None, "uid is `wsgate`, id is null")
    problems.expect(board["schemaVersion"] >= 38, "schemaVersion below 38 (Grafana 10)")
    ids = [p["id"] for p in board["panels"]]
    problems.expect(len(ids) == len(set(ids)), "two panels share an id")
    variables = {v["name"] for v in board["templating"]["list"]}
    cells = {}
    for panel in board["panels"]:
        title, g = panel["title"], panel["gridPos"]
        problems.expect(g["x"] + g["w"] <= 24, f"`{title}` is wider than the grid")
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            if cells.setdefault(cell, title) != title:
                problems.add(f"`{title}` lies on `{cells[cell]}`")
                break
        if panel["type"] == "row":
            continue
        refs = [t["refId"] for t in panel["targets"]]
        problems.expect(refs and len(refs) == len(set(refs)), f"`{title}`: no target, or two share a refId")
        for source in [panel["datasource"]] + [t["datasource"] for t in panel["targets"]]:
            problems.expect(source == {"type": "prometheus", "uid": "${datasource}"}, f"`{title}`: a fixed data source")
        for target in panel["targets"]:
            for name in re.findall(r"\$(\w+)", target["expr"]):
                problems.expect(name in variables or name == "__rate_interval", f"`{title}`: no variable `${name}`")


def unit(problems):
    """What systemd-analyze does not know: the unit against what wsgate promises."""
    values = unit_values(UNIT)
    config = "/etc/wsgate/wsgate.toml"
    expected = {
        "Type": ["notify"],
        "NotifyAccess": ["main"],
        "ExecStartPre": [f"/usr/bin/wsgate check -c {config}"],
        "ExecStart": [f"/usr/bin/wsgate run -c {config}"],
        "ExecReload": [f"/usr/bin/wsgate check -c {config}", "/bin/kill -HUP $MAINPID"],
        "KillMode": ["mixed"],
        "KillSignal": ["SIGTERM"],
        "RuntimeDirectory": ["wsgate"],
        "RuntimeDirectoryMode": ["0700"],
        "NoNewPrivileges": ["yes"],
        "ProtectSystem": ["strict"],
    }
    for key, value in expected.items():
        problems.expect(values.get(key) == value, f"{key}: `{values.get(key)}`, expected `{value}`")
    problems.expect("WatchdogSec" in values, "no watchdog")
    problems.expect("DynamicUser" in values or "User" in values, "runs as root")
    stop = int(values["TimeoutStopSec"][0])
    configs = sorted((ROOT / "conf").glob("*.toml")) + [CONTAINER_CONFIG]
    problems.expect(len(configs) > 1, "no configuration in conf/")
    for file in configs:
        drain = DRAIN_DEFAULT | tomllib.loads(file.read_text()).get("gateway", {}).get("drain", {})
        needed = seconds(drain["delay"]) + seconds(drain["timeout"])
        problems.expect(stop > needed, f"TimeoutStopSec={stop} cuts the drain of {file.name} short: it may take {needed:g} s")
    drop_in(problems, f"/usr/bin/wsgate run --upgrade -c {config}")


def unit_values(file):
    """-> {key: every value in order}. A backslash at the end of a line continues it."""
    values = {}
    for line in file.read_text().replace("\\\n", " ").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key.strip(), []).append(" ".join(value.split()))
    return values


def drop_in(problems, successor):
    """A hand-over under systemd: the socket is the default one, and the new process may say that it is the main one."""
    values = unit_values(DROP_IN)
    problems.expect(values.get("NotifyAccess") == ["all"], "handover.conf: the new process is not believed")
    reload = values.get("ExecReload", [])
    problems.expect(len(reload) == 3 and reload[0] == "", "handover.conf: ExecReload of the unit is not replaced")
    path = re.search(r"^\s*#?\s*upgrade_socket = \"(\S+)\"", (ROOT / "conf/wsgate.toml").read_text(), flags=re.M)
    problems.expect(path and f"socket={path[1]};" in reload[-1], f"handover.conf: not the default upgrade_socket: {reload[-1:]}")
    problems.expect(successor in reload[-1], f"handover.conf: does not start `{successor}`")


def seconds(text):
    scale = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(float(n) * scale[u] for n, u in re.findall(r"([\d.]+)\s*(ms|s|m|h|d)", text))


def container(problems):
    """What can be known of the image without building it."""
    source = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    steps = [(w[0].upper(), " ".join(w[1:])) for w in (line.split() for line in source.splitlines()) if w]
    stages, stage_names = [], set()
    for word, rest in steps:
        if word == "FROM":
            image, *alias = re.split(r"\s+[Aa][Ss]\s+", rest)
            stages.append({"image": image, "steps": []})
            if image not in stage_names | {"scratch"}:
                problems.expect(re.search(r":\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$", image), f"not pinned to a version: `{image}`")
            stage_names.update(alias)
        elif stages:
            stages[-1]["steps"].append((word, rest))
    problems.expect(len(stages) == 2, "expected a build stage and a final stage")
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    problems.expect(f"rust:{toolchain}-" in stages[0]["image"], f"builds with another Rust than rust-toolchain.toml's {toolchain}")
    problems.expect(("ENV", f"RUSTUP_TOOLCHAIN={toolchain}") in stages[0]["steps"], "RUSTUP_TOOLCHAIN is not the pinned one")
    final_stage(problems, stages[-1])
    copied = context(problems, stages)
    build_inputs(problems, copied)
    exposed = {p for w, r in stages[-1]["steps"] if w == "EXPOSE" for p in r.split()}
    config = tomllib.loads(CONTAINER_CONFIG.read_text())
    ports = {a.rsplit(":", 1)[1] for a in [config["admin"]["listen"]] + [l["listen"] for l in config["listener"]]}
    problems.expect(exposed == ports, f"exposes {sorted(exposed)}, wsgate.toml listens on {sorted(ports)}")


def final_stage(problems, stage):
    image, steps = stage["image"], stage["steps"]
    problems.expect(image == "scratch" or "/distroless/static" in image, f"the final image has more than it needs: `{image}`")
    words = [w for w, _ in steps]
    for word in ("RUN", "SHELL", "ADD"):
        problems.expect(word not in words, f"{word} in the final stage")
    users = [r for w, r in steps if w == "USER"]
    problems.expect(len(users) == 1 and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0]), f"not one numeric user that is not root: {users}")
    for word in ("ENTRYPOINT", "CMD"):
        forms = [r for w, r in steps if w == word]
        problems.expect(len(forms) == 1 and forms[0].startswith("["), f"{word} would need a shell: {forms}")
    for label in ("title", "description", "version", "revision"):
        problems.expect(any(f"org.opencontainers.image.{label}=" in r for w, r in steps if w == "LABEL"), f"no label `{label}`")
    crate = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    problems.expect(any(f'image.version="{crate}"' in r for w, r in steps if w == "LABEL"), f"the label version is not {crate}")


def context(problems, stages):
    """Sources of COPY: there, and let through by .dockerignore. -> those sources"""
    ignore = [l for l in (ROOT / ".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    problems.expect(ignore[:1] == ["*"] and all(l.startswith("!") for l in ignore[1:]), ".dockerignore is no list of what is let through")
    let_through = {l[1:] for l in ignore[1:]}
    copied = set()
    for stage in stages:
        for word, rest in stage["steps"]:
            if word == "COPY" and "--from=" not in rest:
                copied.update(p for p in rest.split()[:-1] if not p.startswith("--"))
    problems.expect(len(copied) >= 4, f"COPY takes only {sorted(copied)}")
    for path in sorted(copied):
        problems.expect((ROOT / path).exists(), f"COPY of what does not exist: `{path}`")
        problems.expect(path in let_through, f".dockerignore keeps out what COPY needs: `{path}`")
    for path in sorted(let_through - copied):
        problems.add(f".dockerignore lets through what no COPY needs: `{path}`")
    return copied


def build_inputs(problems, copied):
    """What the build reads beyond src: it must be in the build stage too."""
    inside = lambda path: any(path == c or path.startswith(c + "/") for c in copied)
    if (ROOT / "build.rs").exists():
        problems.expect("build.rs" in copied, "build.rs is not copied")
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    for kind in ("test", "bench", "example"):
        for entry in manifest.get(kind, []):
            path = entry.get("path", f"tests/{entry['name']}.rs")
            problems.expect(inside(path), f"Cargo.toml names {path}; cargo would not build without it, and no COPY brings it")
    for member in manifest.get("workspace", {}).get("members", []):
        problems.expect(inside(member), f"the workspace member `{member}` is not copied")
    sources = sorted((ROOT / "src").rglob("*.rs"))
    problems.expect(sources, "no sources in src/")
    pattern = r'include(?:_str|_bytes)?!\(\s*(?:concat!\(\s*env!\("CARGO_MANIFEST_DIR"\),\s*)?"([^"]+)"'
    for file in sources:
        for m in re.finditer(pattern, file.read_text()):
            rooted = "CARGO_MANIFEST_DIR" in m.group(0)
            path = (ROOT / m.group(1).lstrip("/")) if rooted else (file.parent / m.group(1))
            relative = str(path.resolve().relative_to(ROOT))
            problems.expect(inside(relative), f"{file.relative_to(ROOT)} includes `{relative}`, which is not copied")


def live(problems, metrics_file):
    """What the running gateway serves is what docs/metrics.md says: families, types, labels."""
    known = families()
    kinds, labels = {}, {}
    for line in Path(metrics_file).read_text().splitlines():
        if m := re.match(r"# TYPE (\S+) (\S+)$", line):
            kinds[m.group(1)] = m.group(2)
        elif m := re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+", line):
            base = re.sub(r"_(bucket|sum|count)$", "", m.group(1))
            name = base if kinds.get(base) == "histogram" else m.group(1)
            found = set(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', m.group(2) or ""))
            labels.setdefault(name, set()).update(found - {"le"})
    problems.expect(len(kinds) >= 15, f"only {len(kinds)} families in {metrics_file}")
    for name, kind in kinds.items():
        if name not in known:
            problems.add(f"docs/metrics.md does not know `{name}`")
            continue
        problems.expect(kind == known[name][0], f"`{name}` is a {kind}, docs/metrics.md says {known[name][0]}")
        if name in labels:
            problems.expect(labels[name] == known[name][1], f"`{name}` has {sorted(labels[name])}, docs/metrics.md says {sorted(known[name][1])}")
    for name in sorted(set(known) - set(kinds) - EVENT_ONLY):
        problems.add(f"docs/metrics.md names `{name}`; the gateway did not show it")


def values(problems, metrics_file):
    """The values of labels are from the closed sets that docs/metrics.md lists."""
    closed = {}
    for line in METRICS_DOC.read_text().split("## Labels", 1)[1].split("\n## ", 1)[0].splitlines():
        if m := re.match(r"\| `(version|direction|by)` \| (.*) \|$", line):
            closed[m.group(1)] = set(re.findall(r"`([^`]+)`", m.group(2)))
    problems.expect(set(closed) == {"version", "direction", "by"}, f"docs/metrics.md: found only {sorted(closed)}")
    for line in Path(metrics_file).read_text().splitlines():
        if line.startswith("wsgate_") and not line.startswith("wsgate_build_info"):
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line):
                if label in closed:
                    problems.expect(value in closed[label], f"`{label}={value}` is not in docs/metrics.md: {line}")


def syscalls(problems, trace_file, filter_file):
    """Every system call of a traced run is one that the unit's filter lets through."""
    allowed, denied = set(), set()
    groups = {}
    for line in Path(filter_file).read_text().splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), [])
        elif m := re.match(r"\s+(@?[\w-]+)\s*$", line):
            group.append(m.group(1))

    def expand(name):
        if not name.startswith("@"):
            return {name}
        if name not in groups:
            raise SystemExit(f"systemd-analyze does not know `{name}`")
        return set().union(*(expand(n) for n in groups[name]))

    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), flags=re.M):
        target = denied if line.startswith("~") else allowed
        for name in line.lstrip("~").split():
            target |= expand(name)
    used = set(re.findall(r"^(?:\d+ +)?(\w+)\(", Path(trace_file).read_text(), flags=re.M))
    problems.expect(len(used) > 20 and {"execve", "accept4", "sendmsg", "recvmsg", "exit_group"} <= used, f"the trace is too short: {sorted(used)}")
    default = expand("@default")
    for name in sorted(used - ((allowed - denied) | default)):
        problems.add(f"the unit's SystemCallFilter refuses `{name}`")


CHECKS = {f.__name__: f for f in (names, queries_as_rules, alerts, links, dashboard, unit, container, live, values, syscalls)}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CHECKS:
        raise SystemExit(f"usage: checks.py {'|'.join(CHECKS)} [ARGUMENT...]")
    problems = Problems()
    try:
        CHECKS[sys.argv[1]](problems, *sys.argv[2:])
    except FileNotFoundError as missing:
        problems.add(f"no such file: {missing.filename}")
    for line in problems.lines:
        print(line)
    sys.exit(1 if problems.lines else 0)
