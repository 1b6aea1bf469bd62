//! Pure routing: key hash, tables, placement, difference between maps.
//!
//! A key is hashed as PostgreSQL hashes it ([`hash`]), the hash names one of the feed's tables
//! ([`hash::table_of`]), and the ownership that the instances report ([`resolve()`]) names the
//! instance of that table now. The shard map's wish ([`place()`]) is only ever compared with it
//! ([`drift()`]): it never routes a row.
//!
//! This crate does no I/O, and its results depend on nothing but its arguments: not on the
//! platform, nor on the version of the standard library.

mod drift;
pub mod hash;
mod names;
mod owner;
mod place;
mod ring;

pub use drift::{Drift, drift};
pub use names::{Epoch, FeedName, InstanceName, KeyType, NameError, TableId};
pub use owner::{Ownership, OwnershipState, TableOwner, UnknownState, resolve};
pub use place::{MAX_WEIGHT, PlacementError, VIRTUAL_NODES_PER_WEIGHT, place};
pub use ring::RingHash;
