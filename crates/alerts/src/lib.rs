//! Alert cursors, fan-in and subscriptions, over a [`Source`] trait.
//!
//! One reader per instance follows the instance's outbox by its live cursor and keeps the last
//! alerts in a ring ([`Hub`]). A [`Subscription`] owns a cursor per instance and no queue: it pulls
//! from the rings, and from the sources where a ring no longer reaches back to its cursor. So a
//! slow subscriber costs nothing, loses nothing, and disturbs nobody.
//!
//! Changes of rows (`changes`) come over the same connections. They are not kept: whoever misses
//! some is told so.
//!
//! This crate knows no SQL and no network: instances are [`Source`]s.

mod changes;
mod config;
mod cursor;
mod event;
mod filter;
mod group;
mod hub;
mod lane;
pub mod metrics;
mod notes;
mod reader;
mod ring;
mod slot;
mod snapshot;
mod source;
mod subscription;
mod token;
mod window;
mod wire;

pub use changes::{
    Change, ChangeEvent, ChangeFollower, ChangeOp, ChangeOptions, ChangeProgress, KeyList,
};
pub use config::HubConfig;
pub use cursor::{Cursor, Identity, PageMark, Rewinds, TimelineStart, rewind};
pub use event::{Event, Progress, ReadState};
pub use filter::Filter;
pub use group::{
    Claim, Consumer, ConsumerEvent, ConsumerOptions, Delivery, DeliveryId, DeliveryIdError,
    GroupStore, Settle, Settled,
};
pub use hub::{Hub, InstanceStatus};
pub use snapshot::{Snapshot, SnapshotError};
pub use source::{Alert, Dropped, Listener, Page, Source, SourceError, Wake};
pub use subscription::{Start, SubscribeError, SubscribeOptions, Subscription};
pub use token::{Position, Token, TokenError};
