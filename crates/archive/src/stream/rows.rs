//! Rows without their terminator.
