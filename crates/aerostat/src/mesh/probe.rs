//! How well a host is reached: ICMPv6 echoes over the host plane, one a second.
//!
//! A probe is an echo request whose sequence number is the probe's; the kernel fills in checksum
//! and identifier, and gives us the answers to our own only.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Probes that count: a minute.
const PROBES_MAX: usize = 60;

/// An answer may take this long before a probe counts as lost. Above twice the way around the
/// earth; one that comes later still counts as come.
const PATIENCE: Duration = Duration::from_secs(2);

/// ICMPv6 (RFC 4443 §4): type, code, checksum, identifier, sequence number.
const ECHO_BYTES: usize = 8;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Probe `number` as it is handed to the kernel.
pub(super) fn request(number: u16) -> [u8; ECHO_BYTES] {
    let [high, low] = number.to_be_bytes();
    [ECHO_REQUEST, 0, 0, 0, 0, 0, high, low]
}

/// The number of the probe that a message answers.
pub(super) fn answered(message: &[u8]) -> Option<u16> {
    match message {
        [ECHO_REPLY, 0, _, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// The last probes of one host.
#[derive(Debug, Default)]
pub(super) struct Window {
    probes: VecDeque<Probe>,
}

#[derive(Debug)]
struct Probe {
    number: u16,
    sent: Instant,
    round_trip: Option<Duration>,
}

/// What the last probes say together; `None` as long as none has had its time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Quality {
    pub(super) loss_percent: Option<f64>,
    /// The median.
    pub(super) round_trip: Option<Duration>,
}

impl Window {
    pub(super) fn sent(&mut self, number: u16, now: Instant) {
        if self.probes.len() == PROBES_MAX {
            self.probes.pop_front();
        }
        self.probes.push_back(Probe {
            number,
            sent: now,
            round_trip: None,
        });
    }

    /// An answer to a probe that is forgotten, or a second one, changes nothing.
    pub(super) fn answered(&mut self, number: u16, now: Instant) {
        let probe = self
            .probes
            .iter_mut()
            .find(|probe| probe.number == number && probe.round_trip.is_none());
        if let Some(probe) = probe {
            probe.round_trip = Some(now.saturating_duration_since(probe.sent));
        }
    }

    pub(super) fn quality(&self, now: Instant) -> Quality {
        let mut answers: Vec<_> = self.probes.iter().filter_map(|p| p.round_trip).collect();
        answers.sort_unstable();
        let is_lost = |probe: &&Probe| probe.round_trip.is_none() && now >= probe.sent + PATIENCE;
        let lost = self.probes.iter().filter(is_lost).count();
        let percent = |part: usize, of: usize| {
            let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            (of > 0).then(|| 100.0 * float(part) / float(of))
        };
        Quality {
            loss_percent: percent(lost, lost + answers.len()),
            round_trip: answers.get(answers.len() / 2).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_names_the_probe_that_it_answers() {
        let mut message = request(0x1234);
        assert_eq!(answered(&message), None);
        message[0] = ECHO_REPLY;
        assert_eq!(answered(&message), Some(0x1234));
        assert_eq!(answered(&message[..6]), None);
    }

    #[test]
    fn what_is_not_answered_in_time_is_lost() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert_eq!(window.quality(start), Quality::default());
        for number in 0..4 {
            window.sent(number, start);
        }
        // Nothing has had its time yet.
        assert_eq!(window.quality(start).loss_percent, None);
        for (number, round_trip) in [(0, 30), (1, 10), (2, 20)] {
            window.answered(number, start + round_trip * MS);
        }
        let early = window.quality(start + 40 * MS);
        assert_eq!(early.loss_percent, Some(0.0));
        let late = window.quality(start + PATIENCE);
        assert_eq!(late.loss_percent, Some(25.0));
        assert_eq!(late.round_trip, Some(20 * MS));
    }

    #[test]
    fn a_late_answer_is_an_answer_and_a_second_one_is_none() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.sent(1, start);
        let late = start + 2 * PATIENCE;
        assert_eq!(window.quality(late).loss_percent, Some(100.0));
        window.answered(1, late);
        window.answered(1, late + PATIENCE);
        window.answered(9, late);
        let quality = window.quality(late);
        assert_eq!(quality.loss_percent, Some(0.0));
        assert_eq!(quality.round_trip, Some(2 * PATIENCE));
    }

    #[test]
    fn only_the_last_minute_counts() {
        let (mut window, start) = (Window::default(), Instant::now());
        for number in 0..1000 {
            window.sent(number, start);
            if number >= 970 {
                window.answered(number, start + MS);
            }
        }
        assert_eq!(window.probes.len(), PROBES_MAX);
        let quality = window.quality(start + PATIENCE);
        assert_eq!(quality.loss_percent, Some(50.0));
    }
}
