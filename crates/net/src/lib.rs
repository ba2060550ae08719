//! Packets and the kernel's network: one host's namespace, links, guards and the way out.
