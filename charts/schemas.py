"""Bundles Kubernetes' JSON schemas from the kubernetes-validate package, one self-contained file a kind, for kubeconform."""

import json
import pathlib
import sys

import kubernetes_validate

version, target = sys.argv[1], pathlib.Path(sys.argv[2])
source = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local-strict"
target.mkdir(parents=True, exist_ok=True)
own = "#/$defs/"
definitions = json.loads((source / "_definitions.json").read_text())["$defs"]
for file in source.glob("*-*.json"):
    schema = json.loads(file.read_text().replace("/api/_definitions.json" + own, own))
    schema.pop("$id", None)
    used, unread = {}, [schema]
    while unread:  # only what the kind refers to, or each file would have megabytes
        for part in json.dumps(unread.pop()).split(own)[1:]:
            name = part.split('"', 1)[0]
            if name not in used:
                used[name] = definitions[name]
                unread.append(definitions[name])
    (target / file.name).write_text(json.dumps(schema | {"$defs": used}))
