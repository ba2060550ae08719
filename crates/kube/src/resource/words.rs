//! Interned words: the names of custom resources as `&'static str`.
//!
//! Names of kinds are few and come back again and again, while rows are made anew at every change
//! of a definition. Each distinct word is kept once and for good; a bound keeps whoever may define
//! resources from filling the memory with names.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Room for about 40,000 definitions with names of their own, which is more than etcd takes.
const WORDS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// More names of resources were defined than a server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many different names of resources since the server was started")]
pub(crate) struct WordsFull;

#[derive(Default)]
struct Words {
    words: HashSet<&'static str>,
    lists: HashSet<&'static [&'static str]>,
    bytes: usize,
}

static WORDS: Mutex<Option<Words>> = Mutex::new(None);

/// The same text, for good.
pub(crate) fn intern(text: &str) -> Result<&'static str, WordsFull> {
    with(|words| words.word(text))
}

/// The same texts in the same order, for good.
pub(crate) fn intern_all<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<&'static [&'static str], WordsFull> {
    with(|words| {
        let list = texts
            .into_iter()
            .map(|text| words.word(text))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(known) = words.lists.get(list.as_slice()) {
            return Ok(*known);
        }
        words.take(size_of_val(list.as_slice()))?;
        let list: &'static [_] = list.leak();
        words.lists.insert(list);
        Ok(list)
    })
}

fn with<T>(run: impl FnOnce(&mut Words) -> T) -> T {
    // Whoever panicked left whole words only.
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    run(words.get_or_insert_default())
}

impl Words {
    fn word(&mut self, text: &str) -> Result<&'static str, WordsFull> {
        if let Some(known) = self.words.get(text) {
            return Ok(known);
        }
        self.take(text.len())?;
        let word: &'static str = text.to_owned().leak();
        self.words.insert(word);
        Ok(word)
    }

    fn take(&mut self, bytes: usize) -> Result<(), WordsFull> {
        let bytes = self.bytes + bytes;
        if bytes > WORDS_BYTES_MAX {
            return Err(WordsFull);
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_and_not_without_end() {
        let mut words = Words::default();
        let first = words.word("certificates").expect("room");
        let second = words.word(&String::from("certificates")).expect("room");
        assert!(std::ptr::eq(first, second));
        assert_eq!(words.bytes, "certificates".len());
        let long = "x".repeat(WORDS_BYTES_MAX);
        assert_eq!(words.word(&long), Err(WordsFull));
        assert_eq!(words.word("certificates"), Ok("certificates"));
        let list = intern_all(["a", "b"]).expect("room");
        assert!(std::ptr::eq(list, intern_all(["a", "b"]).expect("room")));
    }
}
