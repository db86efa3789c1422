//! The arrows between crates and between the rooms of the proxy: who may import whom, and who does no IO.
//!
//! A room is a module of `proxy/src` that [`ROOMS`] names; one that does not exist yet has no arrows. Test code is free.

#[path = "layout/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source::{Source, imports, repository, sources};

/// Each crate and the crates of this workspace that its production code may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("cli", &[]),
    ("contract", &[]),
    ("crds", &[]),
    ("livez", &[]),
    ("trace", &[]),
    ("engine", &[]),
    ("operator", &["crds", "contract", "trace"]),
    ("proxy", &["contract", "trace"]),
    ("e2e", &["contract", "crds"]),
];

/// What production code of a crate must not depend on at all.
const WITHOUT: &[(&str, &[&str])] = &[
    ("contract", &["async-trait", "axum", "futures", "hyper", "kube", "reqwest", "tokio"]),
    ("crds", &["axum", "hyper", "reqwest", "tokio"]),
];

/// Each room of the proxy and the rooms that it may import. The wiring in `app` may import every room, and none imports it.
const ROOMS: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("transcript", &[]),
    ("net", &[]),
    ("config", &["protocol", "net"]),
    ("keys", &["config", "net"]),
    ("job", &["audio", "transcript"]),
    ("protocol", &["job", "audio", "transcript"]),
    ("upstream", &["protocol", "job", "audio", "net", "config", "ffmpeg"]),
    ("stream", &["job", "upstream", "audio", "transcript", "config"]),
    ("edge", &["net", "config", "keys"]),
    ("jobs", &["job", "net", "config"]),
    ("clips", &[]),
    ("ffmpeg", &[]),
    (
        "api",
        &[
            "clips",
            "edge",
            "ffmpeg",
            "stream",
            "jobs",
            "job",
            "upstream",
            "audio",
            "transcript",
            "config",
            "keys",
            "net",
        ],
    ),
    ("guard", &["protocol", "job", "audio", "transcript", "net", "config"]),
    (
        "app",
        &[
            "api",
            "audio",
            "clips",
            "config",
            "edge",
            "guard",
            "job",
            "jobs",
            "keys",
            "net",
            "protocol",
            "stream",
            "transcript",
            "upstream",
        ],
    ),
];

/// Rooms that only compute. The traits of `std::io` are fine.
const PURE: &[&str] = &["audio", "transcript", "guard/judge"];
const IO: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "reqwest",
    "std::fs",
    "std::net",
    "std::process",
    "io::stdin",
    "io::stdout",
    "io::stderr",
];

/// Words of engines' protocols, which no file of `api` contains.
const ENGINE_WORDS: &[&str] = &[
    "/v1/audio/diarize",
    "/v1/audio/synthesize",
    "/v1/audio/list_voices",
    "synthesize_online",
    "nvidia.riva",
];
/// Dialects whose clients use an engine's own paths.
const SPEAK_ALIKE: &[&str] = &["api/nim", "api/parakeet_fastapi", "api/riva", "api/spark"];

/// The room that a module belongs to: the longest name that it begins with.
fn room<'a>(rooms: &BTreeSet<&'a str>, module: &str) -> Option<&'a str> {
    let begins = |room: &&&str| {
        module.strip_prefix(**room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    rooms.iter().filter(begins).max_by_key(|room| room.len()).copied()
}

/// Which room imports which other, with a file that does.
fn arrows<'a>(rooms: &BTreeSet<&'a str>, sources: &[Source]) -> BTreeMap<(&'a str, &'a str), String> {
    let mut found = BTreeMap::new();
    for source in sources {
        let Some(from) = room(rooms, &source.module) else { continue };
        for path in imports(&source.module, &source.text) {
            match room(rooms, &path) {
                Some(to) if to != from => {
                    _ = found.entry((from, to)).or_insert_with(|| source.module.clone())
                }
                _ => {}
            }
        }
    }
    found
}

/// A way from a node back to itself, if there is one.
fn circle<'a>(arrows: &BTreeSet<(&'a str, &'a str)>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        at: &'a str,
        arrows: &BTreeSet<(&'a str, &'a str)>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if way.contains(&at) {
            way.push(at);
            return true;
        }
        if !done.insert(at) {
            return false;
        }
        way.push(at);
        let next = arrows.iter().filter(|(from, _)| *from == at).map(|(_, to)| *to);
        if next.into_iter().any(|to| walk(to, arrows, way, done)) {
            return true;
        }
        way.pop();
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    let nodes: BTreeSet<&str> = arrows.iter().map(|(from, _)| *from).collect();
    let found = nodes.into_iter().any(|node| walk(node, arrows, &mut way, &mut done));
    let end = way.last().copied()?;
    found.then(|| way.into_iter().skip_while(|node| *node != end).collect())
}

/// The names below `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).collect()
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn crates_depend_only_on_those_below_them() {
    let mut wrong = Vec::new();
    for (krate, allowed) in CRATES {
        let manifest = fs::read_to_string(repository().join(krate).join("Cargo.toml")).unwrap_or_default();
        for name in dependencies(&manifest) {
            let forbidden = WITHOUT.iter().any(|(of, names)| of == krate && names.contains(&name));
            let own = name.strip_prefix("speechstack-");
            if forbidden || own.is_some_and(|own| !allowed.contains(&own)) {
                wrong.push(format!("{krate} on {name}"));
            }
        }
    }
    none("these dependencies are not in CRATES, or forbidden by WITHOUT", &wrong);
}

#[test]
fn rooms_import_only_those_below_them() {
    let rooms = ROOMS.iter().map(|(room, _)| *room).collect();
    let allowed = |from, to: &str| ROOMS.iter().any(|(room, below)| *room == from && below.contains(&to));
    let sources = sources("proxy");
    assert!(sources.len() > 20, "proxy/src is not found");
    let found = arrows(&rooms, &sources);
    let wrong = found.iter().filter(|((from, to), _)| !allowed(*from, to));
    let wrong: Vec<_> =
        wrong.map(|((from, to), file)| format!("{from} -> {to} in proxy/src/{file}.rs")).collect();
    none("these arrows are not in ROOMS", &wrong);
}

#[test]
fn no_circle_is_allowed() {
    let allowed = ROOMS.iter().flat_map(|(room, below)| below.iter().map(|below| (*room, *below))).collect();
    assert_eq!(circle(&allowed), None, "of ROOMS");
}

#[test]
fn modules_of_a_crate_import_each_other_in_no_circle() {
    let mut wrong = Vec::new();
    for krate in ["cli", "contract", "crds", "operator", "proxy", "engine", "e2e", "trace"] {
        let sources = sources(krate);
        let top = |source: &Source| source.module.split('/').next().unwrap_or_default().to_owned();
        let modules: BTreeSet<String> = sources.iter().map(top).filter(|name| name != "lib").collect();
        let modules = modules.iter().map(String::as_str).collect();
        let arrows = arrows(&modules, &sources);
        let circle = circle(&arrows.keys().copied().collect());
        wrong.extend(circle.map(|circle| {
            let files = circle.windows(2).filter_map(|pair| arrows.get(&(pair[0], pair[1]))).cloned();
            format!("{krate}: {} by {}", circle.join(" -> "), files.collect::<Vec<_>>().join(", "))
        }));
    }
    none("these modules import each other", &wrong);
}

/// What is private is found when nothing uses it any more.
#[test]
fn modules_are_public_only_for_other_crates() {
    let mut wrong = Vec::new();
    for krate in ["operator", "proxy", "engine"] {
        let lib = fs::read_to_string(repository().join(krate).join("src/lib.rs")).unwrap_or_default();
        let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let name = format!("speechstack_{krate}::");
        let users: Vec<String> = users(krate).into_iter().filter(|text| text.contains(&name)).collect();
        let is_used = |module: &str| {
            let group = format!("{name}{{");
            let grouped = |text: &str| {
                let groups = text.split(&group).skip(1).filter_map(|rest| rest.split('}').next());
                groups.into_iter().any(|group| names(group, module))
            };
            users.iter().any(|text| names(text, &format!("{name}{module}")) || grouped(text))
        };
        wrong.extend(modules.filter(|module| !is_used(module)).map(|module| format!("{krate}: {module}")));
    }
    none("no other crate uses these public modules", &wrong);
}

/// The text of all files that see a crate from outside: its binary, its tests and its benches, and every other crate.
fn users(krate: &str) -> Vec<String> {
    let mut folders: Vec<_> = ["tests", "benches"].map(|folder| repository().join(krate).join(folder)).into();
    for (other, _) in CRATES.iter().filter(|(other, _)| *other != krate) {
        folders.extend(["src", "tests", "benches"].map(|folder| repository().join(other).join(folder)));
    }
    folders.push(repository().join("fuzz/fuzz_targets"));
    let mut files = vec![repository().join(krate).join("src/main.rs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    let sources =
        files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources.filter_map(|file| fs::read_to_string(file).ok()).collect()
}

#[test]
fn rooms_that_compute_do_no_io() {
    let mut wrong = Vec::new();
    for source in sources("proxy") {
        if room(&PURE.iter().copied().collect(), &source.module).is_some() {
            let found = IO.iter().filter(|io| names(&source.text, io));
            wrong.extend(found.map(|io| format!("{io} in proxy/src/{}.rs", source.module)));
        }
    }
    none("rooms in PURE do IO", &wrong);
}

/// Whether the text has that path as a whole, not as part of a longer word.
fn names(text: &str, path: &str) -> bool {
    let is_word =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(path).any(|(at, _)| {
        !is_word(text[..at].chars().next_back()) && !is_word(text[at + path.len()..].chars().next())
    })
}

#[test]
fn dialects_know_no_protocol() {
    let mut wrong = Vec::new();
    for source in sources("proxy").iter().filter(|source| source.module.starts_with("api")) {
        let alike = SPEAK_ALIKE.iter().any(|dialect| source.module.starts_with(dialect));
        let found = ENGINE_WORDS.iter().filter(|word| !alike && source.text.contains(**word));
        wrong.extend(found.map(|word| format!("{word} in proxy/src/{}.rs", source.module)));
    }
    none("files of api name what is an engine's", &wrong);
}

#[test]
fn the_operator_knows_the_proxy_in_tests_only() {
    let found = sources("operator").into_iter().filter(|source| source.text.contains("speechstack_proxy::"));
    let wrong: Vec<_> = found.map(|source| format!("operator/src/{}.rs", source.module)).collect();
    none("production code of the operator imports the proxy", &wrong);
}

/// A module and what is below it know each other; beside that no two files of the operator do.
#[test]
fn the_operator_has_no_circle() {
    let sources = sources("operator");
    let modules = sources.iter().map(|source| source.module.as_str());
    let modules: BTreeSet<&str> = modules.filter(|module| !["lib", "main"].contains(module)).collect();
    let is_below =
        |below: &str, above: &str| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    let arrows = arrows(&modules, &sources).into_keys();
    let arrows = arrows.filter(|(from, to)| !is_below(from, to) && !is_below(to, from)).collect();
    assert_eq!(circle(&arrows), None);
}

#[test]
fn a_module_belongs_to_the_nearest_room() {
    let rooms = BTreeSet::from(["guard", "guard/judge", "api"]);
    assert_eq!(room(&rooms, "guard/judge/verdict"), Some("guard/judge"));
    assert_eq!(room(&rooms, "guard"), Some("guard"));
    assert_eq!(room(&rooms, "guardian"), None);
}

#[test]
fn a_circle_is_found_and_named() {
    let circle = |arrows: &[(&'static str, &'static str)]| circle(&arrows.iter().copied().collect());
    assert_eq!(circle(&[("a", "b"), ("a", "c"), ("b", "c")]), None);
    assert_eq!(circle(&[("a", "b"), ("b", "c"), ("c", "b")]), Some(vec!["b", "c", "b"]));
    assert_eq!(circle(&[]), None);
}

#[test]
fn arrows_come_with_the_file_they_are_in() {
    let source = |module: &str, text: &str| Source { module: module.into(), text: text.into() };
    let sources = [source("audio", "use crate::job::Job;"), source("main", "use crate::job::Job;")];
    let found = arrows(&BTreeSet::from(["audio", "job"]), &sources);
    assert_eq!(found, BTreeMap::from([(("audio", "job"), "audio".to_owned())]));
}

#[test]
fn dependencies_are_those_of_production_code() {
    let manifest = "[features]\na = []\n\n[dependencies]\n# why\nanyhow.workspace = true\nb = { path = \"../b\" }\n\n[dev-dependencies]\nc = \"1\"";
    assert_eq!(dependencies(manifest), ["anyhow", "b"]);
}
