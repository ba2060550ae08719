//! What is typed into a shell, and what is read then.
//!
//! ```text
//! # A comment.
//! @ 1.30..          the next command is for a kubectl of at least 1.30 (`..1.29`: at most)
//! $ kubectl create ns team
//! namespace/team created
//! $! kubectl get ns nowhere
//! "nowhere" not found
//! $~ kubectl get pods
//! web 1/1 Running
//! ```
//!
//! `@ open why` says that the server does not do the next command yet; it is told and left out. So
//! is a command to which the server says so itself.
//! `$` must succeed, `$!` must fail, `$~` is repeated until it answers as expected. `> ` continues
//! a command. Below stands what its output (both streams) contains, runs of blanks counted as one:
//! `= ` for a whole line, `! ` for what it must not contain, else any part of it.

use std::time::{Duration, Instant};

/// For `$~`: as long as controllers on a loaded machine may take.
const EVENTUALLY: Duration = Duration::from_secs(45);
/// What the server says of something that it does not do yet, with status 501.
const NOT_BUILT: &str = "is not built yet";
/// A step that takes longer is told, as where the time of these tests goes.
const SLOW: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeds,
    Fails,
    Eventually,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Part(String),
    Line(String),
    Absent(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    line: usize,
    command: String,
    outcome: Outcome,
    expected: Vec<Expected>,
    /// Minor releases of kubectl that it is for.
    minors: (u32, u32),
    /// Why the server does not do it yet.
    open: Option<String>,
}

/// What a shell answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) success: bool,
    pub(super) text: String,
}

/// The steps of a transcript.
pub(super) fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut minors = (0, u32::MAX);
    let mut open = None;
    for (number, line) in text.lines().enumerate() {
        let command = |outcome: Outcome, command: &str, minors| Step {
            line: number + 1,
            command: command.to_owned(),
            outcome,
            expected: Vec::new(),
            minors,
            open: None,
        };
        let everything = (0, u32::MAX);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        } else if let Some(why) = line.strip_prefix("@ open ") {
            open = Some(why.to_owned());
        } else if let Some(range) = line.strip_prefix("@ ") {
            minors = releases(range).unwrap_or_else(|| panic!("line {}: {line}", number + 1));
        } else if let Some(rest) = line.strip_prefix("$! ") {
            steps.push(command(
                Outcome::Fails,
                rest,
                std::mem::replace(&mut minors, everything),
            ));
        } else if let Some(rest) = line.strip_prefix("$~ ") {
            let minors = std::mem::replace(&mut minors, everything);
            steps.push(command(Outcome::Eventually, rest, minors));
        } else if let Some(rest) = line.strip_prefix("$ ") {
            let minors = std::mem::replace(&mut minors, everything);
            steps.push(command(Outcome::Succeeds, rest, minors));
        } else {
            let step = steps
                .last_mut()
                .expect("a transcript begins with a command");
            match line.split_once(' ') {
                Some((">", rest)) => step.command.extend(["\n", rest]),
                Some(("=", rest)) => step.expected.push(Expected::Line(squeeze(rest))),
                Some(("!", rest)) => step.expected.push(Expected::Absent(squeeze(rest))),
                _ => step.expected.push(Expected::Part(squeeze(line))),
            }
        }
        if line.starts_with('$') {
            steps.last_mut().expect("just begun").open = open.take();
        }
    }
    steps
}

/// `1.30..`, `..1.29` or `1.28..1.30`, ends included.
fn releases(range: &str) -> Option<(u32, u32)> {
    let minor = |text: &str| text.trim().strip_prefix("1.")?.parse().ok();
    let (low, high) = range.split_once("..")?;
    let low = if low.trim().is_empty() {
        0
    } else {
        minor(low)?
    };
    let high = if high.trim().is_empty() {
        u32::MAX
    } else {
        minor(high)?
    };
    Some((low, high))
}

/// Runs the steps that are for this release and tells what went otherwise.
pub(super) fn play(steps: &[Step], minor: u32, shell: impl Fn(&str) -> Answer) -> Vec<String> {
    let ours = steps
        .iter()
        .filter(|step| step.minors.0 <= minor && minor <= step.minors.1);
    let timed = ours.filter_map(|step| {
        let begin = Instant::now();
        let problem = step.play(&shell);
        let took = begin.elapsed();
        if took > SLOW {
            eprintln!("SLOW: line {}: {}: {took:.1?}", step.line, step.command);
        }
        problem
    });
    timed.collect()
}

impl Step {
    fn play(&self, shell: &impl Fn(&str) -> Answer) -> Option<String> {
        if let Some(why) = &self.open {
            eprintln!("OPEN: line {}: {}: {why}", self.line, self.command);
            return None;
        }
        let begin = Instant::now();
        loop {
            let answer = shell(&self.command);
            let problem = self.problem(&answer)?;
            if answer.text.contains(NOT_BUILT) {
                eprintln!(
                    "OPEN: line {}: {}: {}",
                    self.line,
                    self.command,
                    answer.text.trim()
                );
                return None;
            }
            if self.outcome != Outcome::Eventually || begin.elapsed() > EVENTUALLY {
                let Self { line, command, .. } = self;
                return Some(format!(
                    "line {line}: $ {command}\n{problem}\n{}",
                    answer.text
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What is wrong with an answer.
    fn problem(&self, answer: &Answer) -> Option<String> {
        match (self.outcome, answer.success) {
            (Outcome::Succeeds | Outcome::Eventually, false) => return Some("-- failed:".into()),
            (Outcome::Fails, true) => return Some("-- should fail:".into()),
            (Outcome::Succeeds | Outcome::Eventually, true) | (Outcome::Fails, false) => {}
        }
        let text = squeeze(&answer.text);
        self.expected.iter().find_map(|expected| match expected {
            Expected::Part(part) => (!text.contains(part)).then(|| format!("-- lacks {part:?}:")),
            Expected::Line(line) => {
                (!text.lines().any(|it| it == line)).then(|| format!("-- lacks the line {line:?}:"))
            }
            Expected::Absent(part) => text
                .contains(part)
                .then(|| format!("-- should not say {part:?}:")),
        })
    }
}

/// Lines with single blanks, without those at the ends.
fn squeeze(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_transcript_is_commands_and_what_they_say() {
    let steps = parse("# first\n@ 1.30..\n$ echo a\n> b\na   b\n= a\n! c\n\n$! false\n");
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0].command, "echo a\nb");
    assert_eq!(
        (steps[0].minors, steps[1].minors),
        ((30, u32::MAX), (0, u32::MAX))
    );
    let expected = [
        Expected::Part("a b".into()),
        Expected::Line("a".into()),
        Expected::Absent("c".into()),
    ];
    assert_eq!(steps[0].expected, expected);
    assert_eq!(steps[1].outcome, Outcome::Fails);
}

#[test]
fn an_answer_that_differs_is_told() {
    let steps = parse("$ x\n= whole line\n! absent\n$! y\n");
    let says = |success, text: &str| {
        let text = text.to_owned();
        move |_: &str| Answer {
            success,
            text: text.clone(),
        }
    };
    assert!(play(&steps[..1], 30, says(true, "whole   line\nmore")).is_empty());
    assert!(play(&steps[..1], 30, says(true, "whole line more"))[0].contains("lacks the line"));
    assert!(play(&steps[..1], 30, says(true, "whole line\nabsent"))[0].contains("should not say"));
    assert!(play(&steps[..1], 30, says(false, "whole line"))[0].contains("failed"));
    assert!(play(&steps[1..], 30, says(true, ""))[0].contains("should fail"));
}
