//! Who we are and who belongs to us: the fleet's key, this host's identity, and how a host joins.
