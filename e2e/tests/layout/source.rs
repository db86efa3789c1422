//! Production code as text, and the modules that it imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A source file without its tests and comments.
pub struct Source {
    /// Where it is, below `src`, without `.rs`: `guard/forward/call`.
    pub module: String,
    pub text: String,
}

/// All production code of a crate; nothing if there is no such crate.
pub fn sources(krate: &str) -> Vec<Source> {
    let root = repository().join(krate).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_test {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            let module = path.with_extension("");
            let (Ok(module), Ok(text)) = (module.strip_prefix(root), fs::read_to_string(&path)) else {
                continue;
            };
            let module = module.to_string_lossy().replace('\\', "/");
            found.push(Source { module, text: production(&text) });
        }
    }
}

/// The text without comments and without what follows `#[cfg(test)]`, if that is the module of tests.
pub fn production(text: &str) -> String {
    let mut lines = Vec::new();
    let mut all = text.lines().peekable();
    while let Some(line) = all.next() {
        let next = all.peek().copied().unwrap_or_default();
        if line == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            break;
        }
        if !line.trim_start().starts_with("//") {
            lines.push(line.split(" // ").next().unwrap_or(line));
        }
    }
    lines.join("\n")
}

/// The modules that a file names by `crate::` or `super::`, as `room/module/...` from the crate's root.
pub fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let own: Vec<&str> = module.split('/').collect();
    let mut paths = Vec::new();
    let starts = |word: &'static str| {
        text.match_indices(word).filter(|(at, _)| {
            let before = text[..*at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || "_$:".contains(before))
        })
    };
    for (at, word) in starts("crate::") {
        tree(&text[at + word.len()..], &[], &mut paths);
    }
    for (at, _) in starts("super::") {
        let (mut rest, mut depth) = (&text[at..], own.len());
        while let Some(outer) = rest.strip_prefix("super::") {
            (rest, depth) = (outer, depth.saturating_sub(1));
        }
        tree(rest, &own[..depth], &mut paths);
    }
    paths.into_iter().map(|path| path.join("/")).collect()
}

/// Takes apart `a::b`, `a::{b, c::d}` and nested groups; returns what follows.
fn tree<'a>(text: &'a str, prefix: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut group) = text.strip_prefix('{') {
        let mut before = group.len();
        loop {
            group = group.trim_start();
            if let Some(after) = group.strip_prefix('}') {
                return after;
            }
            let rest = tree(group, prefix, paths).trim_start();
            group = rest.strip_prefix(',').unwrap_or(rest);
            if group.len() == before {
                return group; // not Rust
            }
            before = group.len();
        }
    }
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let mut path = prefix.to_vec();
    path.push(&text[..end]);
    match text[end..].strip_prefix("::") {
        Some(deeper) if deeper.starts_with(|letter: char| letter == '{' || letter.is_alphabetic()) => {
            tree(deeper, &path, paths)
        }
        _ => {
            paths.push(path);
            // An alias is no path.
            let rest = &text[end..];
            rest.strip_prefix(" as ").map_or(rest, |alias| {
                alias.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_')
            })
        }
    }
}

#[test]
fn imports_are_read_in_every_form() {
    let text = "use crate::job::{self, Job, id::{Id, New}};\nuse super::super::edge;\nuse super::wire as w;\n\
                fn f() -> crate::config::Config { $crate::net::x; my_crate::api::y; super::super::super::stream::z() }";
    let found = imports("api/openai/form", text);
    let expected = [
        "api/edge",
        "api/openai/wire",
        "config/Config",
        "job/Job",
        "job/id/Id",
        "job/id/New",
        "job/self",
        "stream/z",
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    let broken = imports("edge", "use crate::{\n    config::Config,\n    net,\n};\nuse super::api;");
    assert_eq!(broken.into_iter().collect::<Vec<_>>(), ["api", "config/Config", "net"]);
}

#[test]
fn tests_and_comments_are_no_production_code() {
    let text = "//! crate::api\nuse a; // crate::api\n#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use b;\n}";
    assert_eq!(production(text), "use a;\n#[cfg(test)]\nmod tests;\nfn f() {}");
}
