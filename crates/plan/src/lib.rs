//! What a container needs of its utility VM: a pure function of its OCI spec.
