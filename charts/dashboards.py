#!/usr/bin/env python3
"""Checks Grafana dashboards: form, layout, that PromQL parses, and that metrics and labels exist.

Usage: dashboards.py METRICS RULES DASHBOARD...
METRICS is docs/metrics.md, whose tables name every metric and its labels. Every query is written to RULES as a recording
rule, with Grafana's variables replaced, for `promtool check rules`.
"""
import json
import re
import sys

# Labels that a scrape adds: by Prometheus, and by the PodMonitor of a stack.
SCRAPED = {
    "namespace", "pod", "container", "instance", "job", "le",
    "speechstack_dev_stack", "speechstack_dev_engine", "speechstack_dev_capability", "app_kubernetes_io_component",
}
KINDS = {"row", "stat", "timeseries", "table", "state-timeline"}
WIDTH = 24


def documented(path):
    """Metric name to its labels, out of the tables of docs/metrics.md."""
    metrics = {}
    for line in open(path, encoding="utf-8"):
        cells = [cell.strip() for cell in line.split("|")]
        name = re.fullmatch(r"`(speechstack_[a-z0-9_]+)`", cells[1]) if len(cells) > 2 else None
        if name:
            metrics[name[1]] = set(re.findall(r"`([a-z_]+)`", cells[2]))
    return metrics


def selectors(query):
    """Each metric of a query with the names of the labels that it selects by."""
    for name, labels in re.findall(r"\b(speechstack_[a-z0-9_]+)\b(?:\{([^}]*)\})?", re.sub(r"\b(?:by|on) \([^)]*\)", "", query)):
        if not name.startswith("speechstack_dev_"):
            yield name, set(re.findall(r"([a-z_]+) *(?:=~|!~|!=|=)", labels))


def grouped(query):
    """Names of labels that a query groups or joins by."""
    for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        yield from filter(None, (name.strip() for name in names.split(",")))


class Check:
    def __init__(self, metrics):
        self.metrics = metrics
        self.problems = []
        self.queries = []
        self.uids = set()

    def say(self, where, what):
        self.problems.append(f"{where}: {what}")

    def query(self, where, query):
        known = set(SCRAPED)
        for name, labels in selectors(query):
            base = name if name in self.metrics else re.sub(r"_(bucket|sum|count)$", "", name)
            if base not in self.metrics:
                self.say(where, f"no metric {name}")
                continue
            known |= self.metrics[base]
            for label in labels - self.metrics[base] - SCRAPED:
                self.say(where, f"{name} has no label {label}")
        for label in grouped(query):
            if label not in known:
                self.say(where, f"groups by {label}, which none of its metrics has")

    def panel(self, name, panel, variables):
        where = f"{name}, panel {panel.get('title')!r}"
        if panel["type"] not in KINDS:
            self.say(where, f"unknown kind {panel['type']}")
        if panel["type"] == "row":
            return
        if not panel.get("description", "").endswith("."):
            self.say(where, "needs a description, a sentence")
        if not panel["fieldConfig"]["defaults"].get("unit"):
            self.say(where, "needs a unit")
        if not panel.get("targets"):
            self.say(where, "asks for nothing")
        for target in panel.get("targets", []):
            if target["datasource"]["uid"] != "${datasource}":
                self.say(where, "must ask the data source of the dashboard's variable")
            query = target["expr"]
            for used in re.findall(r"\$(\w+)", query):
                if used not in variables and used != "__rate_interval":
                    self.say(where, f"no variable ${used}")
            self.query(where, query)
            self.queries.append(query)

    def dashboard(self, path):
        name = path.rsplit("/", 1)[-1]
        with open(path, encoding="utf-8") as file:
            dashboard = json.load(file)
        if not dashboard["uid"].startswith("speechstack-") or dashboard["uid"] in self.uids:
            self.say(name, "needs a uid of its own that begins with speechstack-")
        self.uids.add(dashboard["uid"])
        if "id" in dashboard:
            self.say(name, "has the id of one Grafana: remove it")
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        if "datasource" not in variables:
            self.say(name, "needs the variable datasource")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                self.query(f"{name}, variable {variable['name']}", variable["definition"])
        numbers, taken = set(), set()
        for panel in dashboard["panels"]:
            if panel["id"] in numbers:
                self.say(name, f"two panels have the id {panel['id']}")
            numbers.add(panel["id"])
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if cells & taken or place["x"] + place["w"] > WIDTH:
                self.say(name, f"panel {panel['title']!r} lies over another one or beyond the edge")
            taken |= cells
            self.panel(name, panel, variables)


def rules(queries):
    """The queries as recording rules, in JSON, which is YAML too."""
    plain = [re.sub(r"\$__rate_interval", "5m", query) for query in queries]
    plain = [re.sub(r"\$\w+", ".*", query) for query in plain]
    records = [{"record": f"speechstack:dashboard:{number}", "expr": query} for number, query in enumerate(plain)]
    return json.dumps({"groups": [{"name": "dashboards", "rules": records}]})


def main():
    metrics, written, *dashboards = sys.argv[1:]
    check = Check(documented(metrics))
    for path in dashboards:
        check.dashboard(path)
    with open(written, "w", encoding="utf-8") as file:
        file.write(rules(check.queries))
    for problem in check.problems:
        print(problem, file=sys.stderr)
    if len(check.queries) < 10:
        print("dashboards.py finds hardly any queries", file=sys.stderr)
        sys.exit(1)
    sys.exit(bool(check.problems))


if __name__ == "__main__":
    main()
