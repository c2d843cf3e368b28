//! vsock between host and guest: a vhost-user device in this process, or the kernel's own.
