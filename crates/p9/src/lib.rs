//! A 9P2000.L server whose exports cannot be left.
