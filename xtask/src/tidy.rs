//! Rules that neither the compiler nor clippy checks, each guarding a sentence of STYLE.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// A function that grows past this needs an entry in `xtask/long-functions.txt`.
const FUNCTION_LINES_MAX: usize = 70;

/// Who may `use crate::…` whom inside the binary's crate. A role that is not listed here is
/// plumbing that everybody shares.
const ROLES: &[(&str, &[&str])] = &[
    ("cli", &["app", "clusters", "fleet", "tokens"]),
    (
        "api",
        &[
            "directory",
            "placement",
            "worker",
            "catalog",
            "clusters",
            "mesh",
            "secrets",
            "tokens",
        ],
    ),
    ("fleet", &["directory"]),
    ("mesh", &["catalog"]),
    ("gateway", &["catalog", "directory"]),
    ("proxy", &["catalog", "worker"]),
    ("placement", &["worker"]),
    ("worker", &["catalog", "secrets"]),
    ("secrets", &["directory"]),
    ("clusters", &["directory", "worker"]),
    ("tokens", &[]),
    ("catalog", &[]),
    ("directory", &[]),
    ("dns", &["catalog"]),
];

/// Crates in which `unsafe` may not stand at all.
const SAFE_CRATES: &[&str] = &[
    "types", "client", "kube", "testbed", "aerostat", "store", "image",
];

/// Checks every tracked file of the checkout at `root`.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let files = tracked(root)?;
    let mut problems = Vec::new();
    let long = allowed_long_functions(root)?;
    let mut seen = BTreeMap::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"))
    {
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.display().to_string();
        problems.extend(check_header(&name, &text));
        problems.extend(check_unsafe(&name, &text));
        problems.extend(check_roles(&name, &text));
        problems.extend(check_open_ends(&name, &text));
        for (function, lines) in long_functions(&text) {
            seen.insert(format!("{name}::{function}"), lines);
        }
    }
    problems.extend(check_long_functions(&seen, &long));
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(root.join(file))?;
        problems.extend(check_links(root, file, &text));
    }
    if problems.is_empty() {
        eprintln!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    bail!("{} untidy places", problems.len())
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let names = names.split_terminator('\0').map(PathBuf::from);
    Ok(names.filter(|name| root.join(name).is_file()).collect())
}

fn check_header(name: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| format!("{name}: the first line is no module comment"))
}

fn check_unsafe(name: &str, text: &str) -> Vec<String> {
    let in_safe_crate = SAFE_CRATES
        .iter()
        .any(|safe| name.starts_with(&format!("crates/{safe}/src")));
    let address = name.ends_with("/sys.rs") || name.contains("/src/sys/");
    let allowed = address && !in_safe_crate;
    // Split, so that this file does not accuse itself.
    let keyword = concat!("uns", "afe {");
    let item = concat!("uns", "afe fn");
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter(|(_, line)| !allowed && (line.contains(keyword) || line.contains(item)))
        .map(|(number, _)| format!("{name}:{}: unsafe outside sys.rs", number + 1))
        .collect()
}

fn check_open_ends(name: &str, text: &str) -> Vec<String> {
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    text.lines()
        .enumerate()
        .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
        .map(|(number, _)| format!("{name}:{}: an open end", number + 1))
        .collect()
}

fn check_roles(name: &str, text: &str) -> Vec<String> {
    let Some(inside) = name.strip_prefix("crates/aerostat/src/") else {
        return Vec::new();
    };
    let role = inside.split(['/', '.']).next().unwrap_or_default();
    let Some((_, allowed)) = ROLES.iter().find(|(other, _)| *other == role) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (other, _) in ROLES.iter().filter(|(other, _)| *other != role) {
        let uses = text
            .lines()
            .any(|line| line.contains(&format!("crate::{other}")));
        if uses && !allowed.contains(other) {
            problems.push(format!("{name}: {role} may not use crate::{other}"));
        }
    }
    problems
}

/// Names and lengths of the functions that are longer than they should be. Counts from the line
/// that holds `fn` to the closing brace at the same indentation, which rustfmt guarantees.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        // A signature ends in its body, or in a semicolon if it is a trait's.
        let head = lines[start..]
            .iter()
            .find(|line| line.ends_with(['{', ';', '}']));
        if head.is_none_or(|line| !line.ends_with('{')) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[start..].iter().position(|line| **line == close) else {
            continue;
        };
        if length + 1 > FUNCTION_LINES_MAX {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "extern \"C\" ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&name[..end])
}

fn allowed_long_functions(root: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(root.join("xtask/long-functions.txt"))
        .context("cannot read xtask/long-functions.txt")?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (lines, name) = line.split_once(' ').context("a line needs `lines name`")?;
            Ok((name.to_owned(), lines.parse()?))
        })
        .collect()
}

fn check_long_functions(
    seen: &BTreeMap<String, usize>,
    allowed: &BTreeMap<String, usize>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, lines) in seen {
        match allowed.get(name) {
            None => problems.push(format!(
                "{name} has {lines} lines; shorten it or add `{lines} {name}` to \
                 xtask/long-functions.txt"
            )),
            Some(most) if lines > most => {
                problems.push(format!("{name} grew from {most} to {lines} lines"));
            }
            Some(_) => {}
        }
    }
    let gone = allowed.keys().filter(|name| !seen.contains_key(*name));
    problems.extend(gone.map(|name| format!("xtask/long-functions.txt: {name} is no longer long")));
    problems
}

fn check_links(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let folder = root.join(file.parent().unwrap_or(Path::new("")));
    let targets = text.match_indices("](").filter_map(|(at, _)| {
        let rest = &text[at + 2..];
        rest.find(')').map(|end| &rest[..end])
    });
    targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '<']))
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("{}: link to {target}, which does not exist", file.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found_and_a_short_one_is_not() {
        let body = "    x();\n".repeat(80);
        let text =
            format!("fn long() {{\n{body}}}\n\npub(crate) async fn short() {{\n    x();\n}}\n");
        assert_eq!(long_functions(&text), [("long".to_owned(), 82)]);
        let body = "    /// Words.\n".repeat(80);
        let text = format!("trait T {{\n    fn none(\n        &self,\n    );\n{body}}}\n");
        assert!(long_functions(&text).is_empty());
    }

    #[test]
    fn a_forbidden_edge_between_roles_is_named() {
        let problems = check_roles(
            "crates/aerostat/src/dns/mod.rs",
            "use crate::worker::Handle;\n",
        );
        assert_eq!(
            problems,
            ["crates/aerostat/src/dns/mod.rs: dns may not use crate::worker"]
        );
        assert!(check_roles("crates/aerostat/src/app.rs", "use crate::worker;\n").is_empty());
    }

    #[test]
    fn unsafe_stands_in_sys_rs_only() {
        let text = concat!("let x = uns", "afe { f() };\n");
        assert_eq!(check_unsafe("crates/net/src/links.rs", text).len(), 1);
        assert!(check_unsafe("crates/net/src/sys.rs", text).is_empty());
        assert_eq!(check_unsafe("crates/store/src/sys.rs", text).len(), 1);
    }
}
