//! A plan shown to people and scripts: table, JSON, HCS documents.
