//! The guest bridge protocol: frames, messages, settings and result codes.
