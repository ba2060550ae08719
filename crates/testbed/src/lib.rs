//! Hosts for tests, and the three lives.
