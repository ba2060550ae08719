//! Real kubectl and the controllers that look after what is there: volumes, certificates, numbers of
//! pods, nodes, ended Jobs, roles, events, and who of several servers does it.

mod common;
mod kubelet;

mod upkeep {
    mod autoscaler;
    mod certificates;
    mod events;
    mod leaders;
    mod nodes;
    mod volumes;
    mod workloads;
    mod world;
}
