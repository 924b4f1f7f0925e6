//! The data of an archive, decoded and handed over front to back: for restores by several sessions.

mod consumer;
mod custom;
mod directory;
mod rows;

pub use consumer::{DataConsumer, RowsEntry};
pub use custom::stream_custom;
pub use directory::{
    DirectoryEntry, read_directory_entries, read_large_object_list, stream_directory_large_object,
    stream_directory_rows,
};
