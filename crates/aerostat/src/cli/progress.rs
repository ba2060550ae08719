//! How far something has come, on standard error: one line that changes in place on a terminal,
//! a plain line for each step elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use types::api::{Image, PullEvent, PullImage, PullProgress};

use super::output::{self, took};
use super::style::{Colour, Paint};
use super::{Refused, terminal};

/// Cells of a progress bar.
const BAR: usize = 24;
/// The terminal's columns where nobody says.
const COLUMNS: u16 = 80;

/// What is being done now.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    paint: Paint,
    last: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            paint: Paint::stderr(),
            last: String::new(),
        }
    }

    /// Whether somebody looks on while it changes.
    pub(super) fn is_live(&self) -> bool {
        self.terminal
    }

    /// What goes on now. Said once.
    pub(super) fn now(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        text.clone_into(&mut self.last);
        if !self.terminal {
            eprintln!("{text}");
            return;
        }
        let columns = terminal::error_size().map_or(COLUMNS, |size| size.width);
        let line: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(usize::from(columns).saturating_sub(3))
            .collect();
        eprint!("\r\x1b[K{} {line}", self.paint.paint(Colour::Yellow, "…"));
        let _ = io::stderr().flush();
    }

    /// A step is over.
    pub(super) fn done(&mut self, text: &str) {
        self.clear();
        match self.terminal {
            true => eprintln!("{} {text}", self.paint.paint(Colour::Green, "✓")),
            false => eprintln!("{text}"),
        }
    }

    /// Takes the line away that changes, so that others may write.
    pub(super) fn clear(&mut self) {
        if self.terminal && !self.last.is_empty() {
            eprint!("\r\x1b[K");
            let _ = io::stderr().flush();
        }
        self.last.clear();
    }
}

/// Several layers of a pull as one bar.
#[derive(Debug, Default)]
struct Bar {
    layers: usize,
    /// Done and all, in bytes, of the layers that have begun.
    bytes: BTreeMap<usize, (u64, u64)>,
    unpacked: usize,
}

impl Bar {
    fn update(&mut self, progress: PullProgress) {
        match progress {
            PullProgress::Downloading {
                layer,
                layers,
                done_bytes,
                total_bytes,
            } => {
                self.layers = layers;
                self.bytes.insert(layer, (done_bytes, total_bytes));
            }
            PullProgress::Unpacking { layer, layers } => {
                self.layers = layers;
                let (done, total) = self.bytes.entry(layer).or_default();
                *done = *total;
                self.unpacked += 1;
            }
            PullProgress::Writing { layers } => {
                self.layers = layers;
                self.unpacked = layers;
            }
        }
    }

    fn show(&self, elapsed: Duration) -> String {
        let done: u64 = self.bytes.values().map(|(done, _)| done).sum();
        let total: u64 = self.bytes.values().map(|(_, total)| total).sum();
        if self.layers > 0 && self.unpacked >= self.layers {
            return format!("writing the image of {} layers", self.layers);
        }
        let filled = usize::try_from(done * BAR as u64 / total.max(1)).unwrap_or(BAR);
        let bar: String = (0..BAR)
            .map(|cell| if cell < filled { '━' } else { '╌' })
            .collect();
        let speed = match elapsed.as_millis() {
            0..500 => String::new(),
            ms => {
                let per_s = u128::from(done) * 1000 / ms;
                format!(", {}/s", output::size(u64::try_from(per_s).unwrap_or(0)))
            }
        };
        format!(
            "{bar} {} of {}, layer {} of {}{speed}",
            output::size(done),
            output::size(total),
            (self.unpacked + 1).min(self.layers),
            self.layers
        )
    }
}

/// Has an image fetched from its registry, and shows how far that is. Dropping this does not stop
/// the pull.
pub(super) async fn pull(
    client: &client::Client,
    body: &PullImage,
    progress: &mut Progress,
) -> anyhow::Result<Image> {
    let begin = Instant::now();
    progress.now(&format!("pulling {}", body.reference));
    let mut pull = client.pull_image(body).await?;
    let mut bar = Bar::default();
    while let Some(event) = pull.next().await {
        match event? {
            PullEvent::Progress(step) => {
                bar.update(step);
                if progress.is_live() {
                    progress.now(&format!(
                        "pulling {} {}",
                        body.reference,
                        bar.show(begin.elapsed())
                    ));
                }
            }
            PullEvent::Image { image } => {
                let ms = i64::try_from(begin.elapsed().as_millis()).unwrap_or(i64::MAX);
                progress.done(&format!(
                    "pulled {} ({}) in {}",
                    image.reference,
                    output::size(image.size_bytes),
                    took(ms)
                ));
                return Ok(image);
            }
            PullEvent::Failed { body } => {
                progress.clear();
                let hint = match body.details.hint.as_str() {
                    "" => String::new(),
                    hint => format!("; {hint}"),
                };
                return Err(Refused(format!("{}{hint}", body.error)).into());
            }
        }
    }
    progress.clear();
    anyhow::bail!("the pull ended without a result; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_come_at_once_are_one_bar() {
        let mut bar = Bar::default();
        for (layer, done) in [(0, 1 << 20), (1, 3 << 20)] {
            bar.update(PullProgress::Downloading {
                layer,
                layers: 2,
                done_bytes: done,
                total_bytes: 4 << 20,
            });
        }
        let text = bar.show(Duration::from_secs(2));
        assert_eq!(
            text,
            "━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 4 MiB of 8 MiB, layer 1 of 2, 2 MiB/s"
        );
        bar.update(PullProgress::Writing { layers: 2 });
        assert_eq!(bar.show(Duration::ZERO), "writing the image of 2 layers");
    }
}
