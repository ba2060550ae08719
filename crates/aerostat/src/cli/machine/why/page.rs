//! A story as people read it: what happened in one column, how long after each other in another,
//! and rounds of the same told once.

use jiff::Timestamp;

use super::{Chapter, Now, Story};
use crate::cli::output::took;
use crate::cli::style::{self, Colour, Paint};

/// Room for the time since the event before.
const TIME_COLUMNS: usize = 12;
/// As many rounds of the same are told one by one; more are summed up.
const ROUNDS_MAX: usize = 3;

/// The story for people.
pub(super) fn text(story: &Story, paint: Paint, width: usize) -> String {
    let from = story.history.first();
    let from = from.map_or_else(String::new, |first| {
        format!(", from {} on", clock(first.at))
    });
    let name = paint.paint(Colour::Bold, &story.name);
    let mut text = format!("{name} ({}) of app {}{from}\n\n", story.machine, story.app);
    let mut before: Option<Timestamp> = None;
    for line in fold(&story.history) {
        let chapter = match line {
            Line::Chapter(chapter) => chapter,
            Line::Rounds { rounds, until } => {
                text += &format!(
                    "            … the same {rounds} times more, until {}\n",
                    clock(until)
                );
                before = Some(until);
                continue;
            }
        };
        let when = match before {
            None => took(0),
            Some(before) => {
                let ms = chapter.at.as_millisecond() - before.as_millisecond();
                format!("+{}", took(ms))
            }
        };
        let who = match chapter.by.as_str() {
            "worker" => String::new(),
            who => format!("  ({who})"),
        };
        let words = chapter.text.replace(char::is_control, " ");
        let words = wrap(&words, width, TIME_COLUMNS + 2);
        let when = paint.paint(Colour::Dim, &format!("{when:>TIME_COLUMNS$}"));
        text += &format!("{when}  {words}{}\n", paint.paint(Colour::Dim, &who));
        for detail in &chapter.details {
            text += &format!("{:>14}{}\n", "", detail.replace(char::is_control, " "));
        }
        before = Some(chapter.at);
    }
    let Now {
        state,
        because,
        next,
        try_,
    } = &story.now;
    let coloured = style::of_state(state.as_str()).map_or_else(
        || state.to_string(),
        |colour| paint.paint(colour, state.as_str()),
    );
    let because = because.replace(char::is_control, " ");
    let because = format!("{state}, because {because}");
    let because = wrap(&because, width, 6).replacen(state.as_str(), &coloured, 1);
    text += &format!("\nnow:  {because}\nnext: {}\n", wrap(next, width, 6));
    for command in try_ {
        text += &format!("try:  {command}\n");
    }
    text
}

/// Lines of at most `width`, of which all but the first begin after `indent`; so may the first.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            lines += &format!("\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines += word;
        used += length;
    }
    lines
}

/// Date and time to the second, in UTC.
fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

enum Line<'a> {
    Chapter(&'a Chapter),
    /// Rounds like the one before.
    Rounds {
        rounds: usize,
        until: Timestamp,
    },
}

/// A machine that falls over again and again tells the same few events each time. Rounds of up to
/// four events that repeat more than [`ROUNDS_MAX`] times are summed up.
fn fold(history: &[Chapter]) -> Vec<Line<'_>> {
    let alike = |a: &Chapter, b: &Chapter| {
        let words = |chapter: &Chapter| {
            let text = &chapter.text;
            text.trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned()
        };
        a.event == b.event && a.by == b.by && words(a) == words(b)
    };
    let mut lines = Vec::new();
    let mut at = 0;
    while at < history.len() {
        let best = (1..=4)
            .map(|size| {
                let mut rounds = 1;
                while at + (rounds + 1) * size <= history.len()
                    && (0..size).all(|i| alike(&history[at + i], &history[at + rounds * size + i]))
                {
                    rounds += 1;
                }
                (rounds, size)
            })
            .find(|(rounds, _)| *rounds > ROUNDS_MAX);
        match best {
            Some((rounds, size)) => {
                lines.extend(history[at..at + size].iter().map(Line::Chapter));
                at += rounds * size;
                lines.push(Line::Rounds {
                    rounds: rounds - 1,
                    until: history[at - 1].at,
                });
            }
            None => {
                lines.push(Line::Chapter(&history[at]));
                at += 1;
            }
        }
    }
    lines
}
