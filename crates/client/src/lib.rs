//! Rust client for pgbraid: writes rows into feeds, follows alerts and changes, caches rows, takes
//! part in consumer groups.
//!
//! - [`Client`] connects to a router; its calls carry the token, if there is one.
//! - [`Producer`] keeps many requests in flight on one stream, reconnects, and sends again what was
//!   not acknowledged: at least once, in order.
//! - [`Subscriber`] follows alerts, reconnects, and goes on after the last token it has seen.
//! - [`ChangeFollower`] follows which rows of a feed change.
//! - [`Cache`] holds rows of a feed, kept in step by its changes.
//! - [`StoredSubscriber`] does so over restarts: it keeps the token in a [`TokenStore`].
//! - [`GroupConsumer`] takes part in a consumer group: deliveries to ack, or a handler to run.
//! - [`Groups`] makes groups, replays them, looks after their dead letters, and pulls.
//! - [`Columns`] and [`Rows`] build requests.
//! - [`Client::write_stream`] is the stream under a producer, for those who keep their own books.
//!
//! Everything else of the protocol is reached through [`Client::rows`] and [`Client::admin`].

mod backoff;
mod cache;
mod changes;
mod client;
mod columns;
mod config;
mod error;
#[cfg(test)]
mod fake_alerts;
mod group;
mod producer;
mod rows;
mod stored;
mod subscriber;
mod token_store;
mod write_stream;

pub use backoff::Backoff;
pub use cache::{Cache, CacheConfig, CacheKey, CacheStats, CachedRow, Observer};
pub use changes::{ChangeEvent, ChangeFollower, FollowOptions};
pub use client::{Auth, Client, Transport};
pub use columns::Columns;
pub use config::{ClientConfig, Identity, TlsOptions};
pub use error::{ApiError, BuildError, ClientError, FieldViolation};
pub use group::{
    ConsumeOptions, Delivery, GroupConsumer, GroupEvent, Groups, Handled, Message, Nack, Outcome,
    RunOptions, Settling,
};
pub use pgbraid_proto::v1 as proto;
pub use producer::{PendingWrite, Producer, ProducerConfig, Refused, WriteAck};
pub use rows::{Field, Rows};
pub use stored::StoredSubscriber;
pub use subscriber::{Event, Received, Start, SubscribeOptions, Subscriber};
pub use token_store::{FileTokenStore, MemoryTokenStore, TokenStore};
pub use write_stream::{Answers, EncodedRequest};
