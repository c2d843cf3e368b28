//! A utility VM: boot, ledger, and the driver that performs what the ledger asks.
