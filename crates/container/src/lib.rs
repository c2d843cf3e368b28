//! A container in a utility VM: allocate, create, start, wait, release.
