//! The encrypted mesh between the hosts of the fleet.
