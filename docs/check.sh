#!/usr/bin/env bash
# Checks that docs/metrics.md has every metric of the sources and no other, docs/faults.md every fault class, docs/runbooks a page
# for every alert and no other, that the tests named by docs/cluster-faults.md and docs/migrate.md exist, and that links between pages lead somewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
bad=0

say() {
	echo "$*" >&2
	bad=1
}

# The production code of a file in one line: no comments, nothing from the module of tests on.
code() {
	awk '/^#\[cfg\(test\)\]/ { held = 1; next }
		held && /^mod .*\{/ { exit }
		{ held = 0 }
		!/^ *\/\// { print }' "$1" | tr -s ' \n\t' ' '
}

sources() {
	find proxy/src operator/src trace/src -name '*.rs' -not -path '*/tests/*' -not -name 'tests.rs' | sort
}

# Names are whole literals, or a prefix and the literals given to the closure or function that puts it before them.
metrics() {
	local file text composer name prefix rest
	for file in $(grep -l '"speechstack_' $(sources)); do
		text=$(code "$file")
		grep -oE '"speechstack_[a-z0-9_]+"' <<<"$text" | tr -d '"' | grep -vxE 'speechstack_(proxy|operator|engine|crds|e2e|contract)' || true
		while read -r composer; do
			[ -n "$composer" ] || continue
			prefix=$(sed -E 's/.*"(speechstack_[a-z0-9_]*)\{.*/\1/' <<<"$composer")
			name=$(sed -nE 's/.*(let|fn) ([a-z_]+)[^"]*"speechstack_[a-z0-9_]*\{.*/\2/p' <<<"$composer")
			rest=$(grep -oE "\b$name\( ?\"[a-z0-9_]+\"" <<<"$text" | sed -E 's/.*"(.*)"/\1/' || true)
			[ -n "$name" ] && [ -n "$rest" ] ||
				{ echo "$file: docs/check.sh cannot follow how metric names are composed with $prefix{}" >&2; exit 1; }
			sed "s/^/$prefix/" <<<"$rest"
		done < <(grep -oE '(let|fn) [a-z_]+[^;]*format!\( ?"speechstack_[a-z0-9_]*\{' <<<"$text" || true)
		# Every composed name must have been followed.
		[ "$(grep -oE 'format!\( ?"speechstack_[a-z0-9_]*\{' <<<"$text" | wc -l)" = \
			"$(grep -oE '(let|fn) [a-z_]+[^;]*format!\( ?"speechstack_[a-z0-9_]*\{' <<<"$text" | wc -l)" ] ||
			{ echo "$file: docs/check.sh cannot follow how a metric name is composed" >&2; exit 1; }
	done | sort -u
}

registered=$(metrics)
documented=$(grep -oE '\bspeechstack_[a-z0-9_]+' docs/metrics.md | sort -u || true)
[ "$(wc -l <<<"$registered")" -ge 20 ] || say "docs/check.sh finds only these metrics in the sources: $registered"
for name in $(comm -23 <(echo "$registered") <(echo "$documented")); do
	say "docs/metrics.md lacks $name"
done
for name in $(comm -13 <(echo "$registered") <(echo "$documented")); do
	say "docs/metrics.md has $name, which nothing registers"
done

# The letters are the wire names of the enum's variants.
enum=$(grep -lE '^pub enum Class \{' $(find contract proxy/src -name '*.rs' 2>/dev/null))
letters=$(awk '/^pub enum Class \{/ { on = 1 } on && /^\}/ { exit } on' $enum | sed -nE 's/.*rename = "([^"]+)".*/\1/p' | sort)
rows=$(sed -nE "s/^\| \`([A-Z]'*)\` \|.*/\1/p" docs/faults.md | sort)
[ -n "$letters" ] || say "docs/check.sh finds no fault classes in $enum"
for letter in $(comm -23 <(echo "$letters") <(echo "$rows")); do
	say "docs/faults.md lacks class $letter"
done
for letter in $(comm -13 <(echo "$letters") <(echo "$rows")); do
	say "docs/faults.md has class $letter, which $enum does not"
done

alerts=$({ sed -nE 's/^ +- alert: (\w+)$/\1/p' charts/speechstack/files/operator-alerts.yaml
	sed -nE 's/^ +name: "(SpeechStack\w+)",$/\1/p' operator/src/reconcile/build/alerts.rs; } | sort)
pages=$(basename -s .md -a docs/runbooks/*.md | sort)
[ "$(wc -l <<<"$alerts")" -ge 10 ] || say "docs/check.sh finds only these alerts: $alerts"
for name in $(comm -23 <(echo "$alerts") <(echo "$pages")); do
	say "docs/runbooks lacks a page for the alert $name"
done
for name in $(comm -13 <(echo "$alerts") <(echo "$pages")); do
	say "docs/runbooks has $name, which is no alert"
done

# A test of the third column: `name`, of the cluster after the word `cluster:`.
tested() { sed -nE 's/^\| [^|]+ \| [^|]+ \| (.*) \|$/\1/p' docs/cluster-faults.md | grep -vx test; }
names() { grep -oE '`[a-z_0-9]+`' | tr -d '`' | sort -u; }
exist() { grep -rhoE "fn [a-z_0-9]+" "$@" --include='*.rs' | cut -c4- | sort -u; }
[ "$(tested | names | wc -l)" -ge 100 ] || say "docs/check.sh finds few tests in docs/cluster-faults.md"
while read -r row; do
	say "docs/cluster-faults.md has a row without a test: $row"
done < <(tested | grep -vE "\`[a-z_0-9]{10,}\`|the chart's" || true)
for name in $(comm -23 <(tested | sed 's/cluster:.*//' | names) <(exist operator/src proxy/src crds/src trace e2e/src e2e/tests/layout.rs)); do
	say "docs/cluster-faults.md names the test $name, which does not exist"
done
for name in $(comm -23 <(tested | sed -n 's/.*cluster://p' | names) <(exist e2e/tests/cluster)); do
	say "docs/cluster-faults.md names the cluster test $name, which does not exist"
done

# A test of the second column: `file::test`, or a whole file of tests.
moved=$(sed -nE 's/^\| [^|]+ \| (.*) \|$/\1/p' docs/migrate.md | grep -oE '`[a-z_]+::[a-z_0-9]+`|`[a-z0-9_/]+\.rs`' | tr -d '`' | sort -u)
[ "$(wc -l <<<"$moved")" -ge 20 ] || say "docs/check.sh finds few tests in docs/migrate.md"
for name in $moved; do
	case $name in
	*::*) grep -qsE "fn ${name#*::}\(" "proxy/src/gateway/tests/${name%%::*}.rs" ;;
	*/*) [ -e "$name" ] ;;
	*) [ -e "proxy/src/gateway/tests/$name" ] ;;
	esac || say "docs/migrate.md names the test $name, which does not exist"
done

for page in README.md CONTRIBUTING.md docs/*.md docs/runbooks/*.md; do
	for link in $(grep -oE '\]\([^)# ]+' "$page" | cut -c3- | grep -v '^https\?:' | sort -u || true); do
		[ -e "$(dirname "$page")/$link" ] || say "$page links to $link, which does not exist"
	done
done
exit $bad
