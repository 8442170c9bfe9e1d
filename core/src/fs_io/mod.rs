//! File I/O that staging and storage share: durable folders, direct I/O, and reads that suit their size.

pub(crate) mod direct_io;
pub(crate) mod fsync;
pub(crate) mod read;

pub use fsync::sync_folder_at as sync_folder;
