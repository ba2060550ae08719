//! The way in for clients outside: WireGuard peers, installed when they knock.
