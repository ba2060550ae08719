//! Private VIPs: services answered on every host for its own machines.
