//! A walk over the whole tree: what one command has, every command has.

use std::path::Path;

use super::*;

/// Where the lines of help may end.
const COLUMNS: usize = 80;

fn help(command: &Command) -> String {
    let mut command = command.clone().term_width(COLUMNS);
    command.render_help().to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    command().debug_assert();
}

#[test]
fn every_command_says_what_it_does_and_has_an_example() {
    let mut missing = Vec::new();
    visit(&built(), "", &mut |path, command| {
        if about(command).is_empty() {
            missing.push(format!(
                "`{path}` has no about: a doc comment on its variant"
            ));
        }
        let after = command.get_after_help().map(ToString::to_string);
        if !after.is_some_and(|text| text.contains("aerostat ")) {
            missing.push(format!("`{path}` has no example: cli/tree/examples.rs"));
        }
    });
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_option_is_explained() {
    let mut missing = Vec::new();
    visit(&built(), "", &mut |path, command| {
        for option in command.get_opts() {
            if option.get_help().is_none() && !option.is_hide_set() {
                missing.push(format!("{path} {option}"));
            }
        }
    });
    assert!(
        missing.is_empty(),
        "options without a doc comment: {missing:#?}"
    );
}

#[test]
fn help_fits_eighty_columns() {
    let mut long = Vec::new();
    let mut see = |path: &str, command: &Command| {
        for line in help(command).lines() {
            if line.chars().count() > COLUMNS {
                long.push(format!("{path}: {line}"));
            }
        }
    };
    let tree = built();
    see("", &tree);
    visit(&tree, "", &mut see);
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn examples_are_commands_that_parse() {
    let mut wrong = Vec::new();
    for (path, lines) in examples::all() {
        for line in lines.lines() {
            for words in invocations(line) {
                // A token cannot be made up.
                let placeholder = words.iter().any(|word| word == "TOKEN");
                if !placeholder
                    && let Err(error) = command().try_get_matches_from(&words)
                    && error.use_stderr()
                {
                    wrong.push(format!("{path}: {words:?}: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The words of each call of `aerostat` in a line of shell, up to what the shell takes, or to the
/// remark that follows several spaces.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let starts = line.match_indices("aerostat ").map(|(at, _)| at);
    starts
        .map(|at| {
            let call = line[at..].split("   ").next().unwrap_or_default();
            let ends = [" && ", " | ", " > ", " < ", ")"];
            let end = ends.iter().filter_map(|end| call.find(end)).min();
            shlex::split(&call[..end.unwrap_or(call.len())]).expect("quotes end")
        })
        .collect()
}

/// Else `--help` says more than `-h`, and every option takes five lines.
#[test]
fn help_is_one_page() {
    visit(&built(), "", &mut |path, command| {
        for argument in command.get_arguments() {
            let has_long = argument
                .get_long_help()
                .is_some_and(|long| Some(long) != argument.get_help());
            assert!(
                !has_long,
                "{path} {argument}: keep its doc comment to one paragraph"
            );
        }
    });
}

#[test]
fn every_command_takes_a_format() {
    visit(&built(), "", &mut |path, command| {
        let has = command.get_arguments().any(|arg| arg.get_id() == "output");
        assert!(has, "{path}");
    });
}

#[test]
fn the_first_page_lists_every_command_once() {
    let page = help(&built());
    for sub in command().get_subcommands() {
        let line = format!("\n  {:<11} ", sub.get_name());
        let count = page.matches(&line).count();
        assert_eq!(
            count,
            usize::from(!sub.is_hide_set()),
            "{}: {page}",
            sub.get_name()
        );
    }
    for group in GROUPS {
        assert!(page.contains(&format!("{}:\n", group.0)), "{page}");
    }
}

/// `docs/cli.md` is what `--help` says. To write it anew:
/// `AEROSTAT_WRITE_DOCS=1 cargo test -p aerostat --lib cli::tree`.
#[test]
fn the_manual_is_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let manual = manual();
    if std::env::var_os("AEROSTAT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &manual).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = manual.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        manual == written,
        "docs/cli.md is not what --help says ({differs:?}); write it anew with \
         AEROSTAT_WRITE_DOCS=1 cargo test -p aerostat --lib cli::tree"
    );
}

fn manual() -> String {
    let mut text = "# The command line\n\nMade from `aerostat --help` by a test of \
                    `crates/aerostat/src/cli/tree`; do not edit.\n"
        .to_owned();
    let tree = built();
    let mut page = |path: &str, command: &Command| {
        let level = "#".repeat(2 + path.matches(' ').count().min(2));
        let name = match path {
            "" => "aerostat".to_owned(),
            path => format!("aerostat {path}"),
        };
        let help = help(command);
        // What every command has stands once, on the first page.
        let mut skip = false;
        let lines = help.lines().filter(|line| {
            skip = !path.is_empty() && (*line == "This host:" || skip && !line.is_empty());
            !skip
        });
        let lines: Vec<_> = lines.map(str::trim_end).collect();
        text += &format!(
            "\n{level} {name}\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        );
    };
    page("", &tree);
    visit(&tree, "", &mut page);
    text
}
