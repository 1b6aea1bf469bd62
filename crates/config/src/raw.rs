//! The files as they are written: shapes and defaults, nothing checked beyond types.
//!
//! The doc comments here are the descriptions in the committed JSON schemas.

pub(crate) mod router;
pub(crate) mod shardmap;
