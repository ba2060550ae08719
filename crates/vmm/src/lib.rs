//! One machine's body: its shim, its isolation class and the channel to what runs inside.
