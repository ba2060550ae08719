//! Programs that nobody here wrote, against the server: kubectl of seven releases, Helm, client-go
//! and controller-runtime, the Python and JavaScript clients, kube-rs; and the
//! definitions of projects that extend the API.
//!
//! What they are told to do and what they should answer stands in [`clients::transcript`]s beside
//! this file; `clients/setup` gets the programs once and keeps them in `.cache/clients`.

mod common;
mod kubelet;

mod clients {
    mod definitions;
    mod flows;
    mod helm;
    mod kubectl;
    mod programs;
    mod protobuf;
    mod transcript;
    mod world;
}
