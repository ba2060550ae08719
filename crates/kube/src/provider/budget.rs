//! How much text a pod's containers may come to.
//!
//! A pod is small beside what it can ask for: variables that name others twice double at each
//! step, and one configMap can be shown in any number of places.

use std::cell::Cell;

use super::translate::{Untranslatable, unsupported};

/// Of a pod's variables, arguments and files. More than the worker takes in a configuration.
pub(crate) const POD_BYTES_MAX: usize = 4 << 20;

/// What is left of it for one pod.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) fn of_a_pod() -> Self {
        Self(Cell::new(POD_BYTES_MAX))
    }

    /// Takes the bytes that `field` comes to.
    ///
    /// # Errors
    /// If so many are not left.
    pub(crate) fn take(&self, bytes: usize, field: &str) -> Result<(), Untranslatable> {
        let left = self.0.get().checked_sub(bytes).ok_or_else(|| {
            let why = format!("variables, arguments and files of more than {POD_BYTES_MAX} bytes");
            unsupported(field, &why)
        })?;
        self.0.set(left);
        Ok(())
    }
}
