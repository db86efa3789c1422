#!/usr/bin/env python3
"""Runs the health check for Argo CD on stacks in each state. Usage: health.py SCRIPT.

Argo CD runs it in Lua 5.1, with the object as `obj`, and takes the table that it returns.
"""
import sys

from lupa import lua51


def health(script, obj):
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return dict(lua.execute(script))


def condition(kind, status, reason="Verified", message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def stack(phase, *conditions, generation=2):
    return {"metadata": {"generation": 2}, "status": {"phase": phase, "observedGeneration": generation, "conditions": list(conditions)}}


READY = condition("Ready", "True")
STARTS = condition("Ready", "False", "Starting", "engines start")
CASES = [
    ("no status yet", {"metadata": {"generation": 1}}, "Progressing"),
    ("an older generation", stack("Ready", READY, generation=1), "Progressing"),
    ("all proven", stack("Ready", READY), "Healthy"),
    ("a first start", stack("Starting", STARTS), "Progressing"),
    ("a repair", stack("Repairing", condition("Ready", "False", "Repairing")), "Progressing"),
    ("fewer replicas than desired", stack("Degraded", condition("Ready", "False", "ReplicasMissing")), "Progressing"),
    ("a spec that cannot be carried out", stack("Failed", condition("Ready", "False", "InvalidSpec", "no such preset")), "Degraded"),
    ("an object that is refused", stack("Ready", condition("Ready", "False", "ApplyFailed")), "Degraded"),
    ("a failed image", stack("Failed", condition("Ready", "False", "ImagePullError")), "Degraded"),
    ("a repair that stopped", stack("Degraded", STARTS, condition("RepairSuspended", "True", "BudgetExhausted", "look")), "Degraded"),
    ("a repair that is held", stack("Ready", READY, condition("RepairSuspended", "True", "Held")), "Healthy"),
    ("a suspended stack", stack("Suspended", condition("Ready", "False", "Suspended")), "Suspended"),
]


def main():
    script = open(sys.argv[1], encoding="utf-8").read()
    bad = False
    for name, obj, expected in CASES:
        found = health(script, obj)
        if found["status"] != expected or not isinstance(found["message"], str):
            print(f"health of {name}: {found}, expected {expected}", file=sys.stderr)
            bad = True
    sys.exit(bad)


if __name__ == "__main__":
    main()
