#!/usr/bin/env python3
"""Checks that a release of an older chart can become one of this chart, and that its stacks stay valid.

Usage: upgrade.py OLD-CHART OLD-RENDERED NEW-RENDERED NEW-CRD, all with the same values. Reports:
objects that disappear, selectors that change (the API server refuses that), fields, enum values and limits that the new CRD takes
away from the old one, and samples of the old chart that the new CRD refuses.
"""
import pathlib
import sys

import jsonschema
import yaml


def objects(path):
    found = {}
    for one in yaml.safe_load_all(open(path, encoding="utf-8")):
        if one and "helm.sh/hook" not in (one["metadata"].get("annotations") or {}):
            found[one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]] = one
    return found


def schema(definition, version):
    served = [one for one in definition["spec"]["versions"] if one["name"] == version and one["served"]]
    return served[0]["schema"]["openAPIV3Schema"] if served else None


def narrower(old, new, at=""):
    """What the new schema refuses and the old one took."""
    if old.get("type") != new.get("type"):
        yield f"{at}: type {old.get('type')} became {new.get('type')}"
    for name, lowered in (("maxLength", min), ("maxItems", min), ("maximum", min), ("minLength", max), ("minItems", max), ("minimum", max)):
        if name in new and (name not in old or lowered(old[name], new[name]) != old[name]):
            yield f"{at}: {name} {old.get(name)} became {new[name]}"
    if old.get("pattern") != new.get("pattern") and "pattern" in new:
        yield f"{at}: another pattern"
    if "enum" in new:
        for value in set(old.get("enum") or ["anything"]) - set(new["enum"]):
            yield f"{at}: no value {value} any more"
    for name in set(new.get("required", [])) - set(old.get("required", [])):
        if name in old.get("properties", {}):
            yield f"{at}.{name}: is required now"
    for name, sub in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{at}.{name}: is gone"
        else:
            yield from narrower(sub, new["properties"][name], f"{at}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            yield from narrower(old[name], new[name], f"{at}[]")


def strict(schema):
    """The schema as the API server uses it for a strict client: unknown fields are refused."""
    if isinstance(schema, dict):
        schema = {key: strict(value) for key, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [strict(one) for one in schema]
    return schema


def main():
    chart, old_path, new_path, crd_path = sys.argv[1:]
    problems = []
    old, new = objects(old_path), objects(new_path)
    for key, one in old.items():
        if key not in new:
            problems.append(f"{key[0]} {key[2]} disappears")
        elif one["kind"] == "Deployment" and one["spec"]["selector"] != new[key]["spec"]["selector"]:
            problems.append(f"the selector of Deployment {key[2]} changes, which the API server refuses")

    was = yaml.safe_load(open(pathlib.Path(chart, "files/speechstacks.yaml"), encoding="utf-8"))
    now = yaml.safe_load(open(crd_path, encoding="utf-8"))
    for version in (one["name"] for one in was["spec"]["versions"]):
        schemas = schema(was, version), schema(now, version)
        if schemas[1] is None:
            problems.append(f"version {version} is not served any more")
            continue
        problems += narrower(schemas[0]["properties"]["spec"], schemas[1]["properties"]["spec"], "spec")
        validator = jsonschema.Draft202012Validator(strict(schemas[1]["properties"]["spec"]))
        samples = [one for path in pathlib.Path(chart, "samples").glob("*.yaml")
                   for one in yaml.safe_load_all(open(path, encoding="utf-8")) if one and one["kind"] == "SpeechStack"]
        if len(samples) < 3:
            problems.append("upgrade.py finds hardly any samples in the old chart")
        for sample in samples:
            for error in validator.iter_errors(sample["spec"]):
                problems.append(f"sample {sample['metadata']['name']}: {error.json_path} {error.message}")
    for problem in problems:
        print(f"upgrade: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
