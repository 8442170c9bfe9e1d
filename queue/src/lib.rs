//! A Redis queue for Apalis.
